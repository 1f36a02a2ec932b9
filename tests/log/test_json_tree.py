"""JSON as a tree: kinds, limits, and the filter of each value."""

from __future__ import annotations

import pytest

from outfeed.log import json_tree
from outfeed.log.json_tree import query_of, tree_of


def leaves(node):
    """Return (key, kind, text, query) of each scalar below *node*."""
    if not node.is_container:
        return [(node.key, node.kind, node.text, node.query)]
    return [leaf for child in node.children for leaf in leaves(child)]


def test_each_scalar_has_its_kind_its_text_and_the_filter_that_finds_it():
    data = {"amount": 12900, "rate": 0.5, "vip": True, "note": None, "customer": {"name": "ACME GmbH"}, "tags": ["eu"]}

    assert leaves(tree_of(data).root) == [
        ("amount", "number", "12900", "data.amount:12900"),
        ("rate", "number", "0.5", "data.rate:0.5"),
        ("vip", "boolean", "true", "data.vip:true"),
        ("note", "null", "null", "data.note:null"),
        ("name", "string", "ACME GmbH", 'data.customer.name:"ACME GmbH"'),
        ("0", "string", "eu", "data.tags.0:eu"),
    ]


@pytest.mark.parametrize(("path", "text", "query"), [
    (("a.b", "c d"), "x", r"data.a\.b.c\ d:x"),
    (('say "hi"',), "x", r"data.say\ \"hi\":x"),
    (("a",), 'says "hi" \\', r'data.a:"says \"hi\" \\"'),
    (("a",), "", 'data.a:""'),
    (("a",), "two\nlines", 'data.a:"two\nlines"'),
])  # fmt: skip
def test_special_characters_of_keys_and_values_are_escaped(path, text, query):
    assert query_of(path, text) == query


@pytest.mark.parametrize("data", [None, "text", 5, ["a", {"b": 1}], {}])
def test_data_of_every_kind_has_a_tree(data):
    tree = tree_of(data)

    assert not tree.is_cut
    assert tree.root.key is None
    assert tree.root.query is None


def test_large_data_is_cut_and_says_so():
    many = tree_of({"list": list(range(5 * json_tree.MAX_NODES))})
    long = tree_of({"text": "x" * (json_tree.MAX_TEXT_CHARS + 1)})

    assert many.is_cut
    assert len(leaves(many.root)) == json_tree.MAX_NODES - 2
    assert long.is_cut
    assert leaves(long.root) == [("text", "string", "x" * json_tree.MAX_TEXT_CHARS + "…", None)]
