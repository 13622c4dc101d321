"""A FastAPI application: lifespan, middleware with `bind`, a transaction, a background task.

createdb shop
python web.py
uvicorn web:app --workers 2
"""

import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sidelight
from sidelight import arg, bind, emits, result
from sidelight.outbox import table

DATABASE = os.environ.get("DATABASE", "postgresql+psycopg://localhost/shop")
engine = create_async_engine(DATABASE)


class Base(DeclarativeBase):
    """The tables of the shop; the outbox is one of them."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


table(Base.metadata)


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Each worker configures sidelight once. The outbox lies in the shop's database."""
    sidelight.configure(os.environ.get("SIDELIGHT_STORE"), outboxes=[DATABASE])
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def identify(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Every event of a request has its id."""
    with bind(request_id=request.headers.get("x-request-id") or str(uuid.uuid4())):
        return await call_next(request)


async def session() -> AsyncIterator[AsyncSession]:
    """A transaction for each request; it commits if the request succeeds."""
    async with AsyncSession(engine, expire_on_commit=False) as opened, opened.begin():
        yield opened


@emits("order_placed", transaction=arg.database, artifact_id=result.id, item=arg.item)
async def place(database: AsyncSession, item: str) -> Order:
    """The event exists if and only if the transaction commits."""
    order = Order(item=item)
    database.add(order)
    await database.flush()
    return order


@emits("mail_sent", artifact_id=arg.order)
def send_mail(order: int) -> None:
    """Runs after the response, in a thread that has the request's context."""


@app.post("/orders/{item}")
async def create(
    item: str, tasks: BackgroundTasks, database: Annotated[AsyncSession, Depends(session)]
) -> dict[str, int]:
    """Place an order; a broken one is rolled back, and leaves no event."""
    order = await place(database, item)
    if item == "broken":
        raise ValueError("out of stock")
    tasks.add_task(send_mail, order.id)
    return {"id": order.id}


@emits("list_streamed", artifact_id=arg.name)
async def lines(name: str) -> AsyncIterator[str]:
    """The event is emitted when the last line has been sent."""
    for number in range(3):
        yield f"{name} {number}\n"


@app.get("/lists/{name}")
async def stream(name: str) -> StreamingResponse:
    """Stream a list."""
    return StreamingResponse(lines(name))


@app.websocket("/chat")
@emits("chat_ended", start="chat_began", mode="awaited")
async def chat(socket: WebSocket) -> None:
    """A call lasts as long as its connection."""
    await socket.accept()
    await socket.send_text((await socket.receive_text()).upper())
    await socket.close()


if __name__ == "__main__":
    Base.metadata.create_all(create_engine(DATABASE))  # the tables, once
