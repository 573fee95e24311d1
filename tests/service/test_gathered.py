import asyncio

from service.gathered import GatheredTransport


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def write_eof(self) -> None:
        self.sent.append(b"eof")

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_what_is_written_in_a_round_is_sent_as_one() -> None:
    async def answers(wire: Wire) -> None:
        transport = GatheredTransport(wire, asyncio.get_running_loop())
        transport.writelines([b"he", b"ad "])
        transport.write(b"body")
        assert wire.sent == []
        await asyncio.sleep(0)
        transport.write(b"next")
        await asyncio.sleep(0)

    wire = Wire()
    asyncio.run(answers(wire))
    assert wire.sent == [b"head body", b"next"]


def test_nothing_is_lost_where_the_connection_ends_in_the_same_round() -> None:
    async def last_words(wire: Wire) -> None:
        transport = GatheredTransport(wire, asyncio.get_running_loop())
        transport.write(b"sorry")
        transport.write_eof()
        transport.write(b"for none")
        transport.close()
        await asyncio.sleep(0)

    wire = Wire()
    asyncio.run(last_words(wire))
    assert wire.sent == [b"sorry", b"eof", b"for none"]
    assert wire.closed
