"""Watch any table: each change of a program's table becomes an event.

Triggers write it in the program's own transaction.

- `definition.py`: what a watch reports, from options or a TOML file. No I/O.
- `table.py`: a table's schema as a value. No I/O.
- `watch/store/generate.py`: the texts of the triggers. A function of definition and table; runs no SQL.
- `watch/store/schema.py`: reads a table's schema, and refuses what cannot be watched.
- `watch/store/watches.py`: the rows of `outfeed_watch`, and their triggers in the file.
- `displays.py`: how the types of a watch are shown.
"""
