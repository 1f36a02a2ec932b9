"""A shop on SQLAlchemy, migrated by Alembic.

Usage: alembic_shop.py DATABASE create|migrate|write COUNT. `migrate` adds, changes and drops columns in one batch,
which copies the table.
"""

import sys

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


def create(connection: sa.Connection) -> None:
    Operations(MigrationContext.configure(connection)).create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("note", sa.Text),
    )


def migrate(connection: sa.Connection) -> None:
    with Operations(MigrationContext.configure(connection)).batch_alter_table("orders") as batch:
        batch.add_column(sa.Column("total", sa.Integer, server_default="0"))
        batch.alter_column("status", type_=sa.String(40))
        batch.drop_column("note")


def write(engine: sa.Engine, count: int) -> None:
    for _ in range(count):
        with Session(engine) as session:
            order = Order(status="open")
            session.add(order)
            session.commit()
            order.status = "paid"
            session.commit()


database, command, *arguments = sys.argv[1:]
engine = sa.create_engine(f"sqlite:///{database}")
if command == "write":
    write(engine, int(arguments[0]))
else:
    with engine.begin() as connection:
        {"create": create, "migrate": migrate}[command](connection)
