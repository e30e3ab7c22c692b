"""Subclasses of plain types, as applications have them, for all that is encoded."""

import enum


class Safe(str):
    """As Django's SafeString."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Liar(str):
    """Says something else wherever it is asked."""

    __slots__ = ()

    def __str__(self) -> str:
        return "wrong"

    __repr__ = __str__

    def __format__(self, _spec: str) -> str:
        return "wrong"

    def __len__(self) -> int:
        return 0


class Word(enum.StrEnum):
    HELLO = "hello"


class Old(str, enum.Enum):  # noqa: UP042 - as before Python 3.11
    HELLO = "hello"


class Bytes(bytes):
    def __bytes__(self) -> bytes:
        return self


class Number(int):
    def __str__(self) -> str:
        return "wrong"


class Code(enum.IntEnum):
    OWN = 4000


class Float(float):
    pass


TEXTS = [Safe("hello"), Liar("hello"), Word.HELLO, Old.HELLO]
VALUES: list[tuple[object, object]] = [
    *((text, "hello") for text in TEXTS),
    (Bytes(b"b"), b"b"),
    (Number(7), 7),
    (Code.OWN, 4000),
    (Float(0.5), 0.5),
    (True, True),
]
