"""
The query language of ``metrics``: text to the tree that the metrics service takes.

Operators have one precedence and associate to the left; parentheses group. A library would be larger than the language.

Source: reference ``http-tools-sdk.md`` section B.2, ``protocol-v12.md`` section 16.
"""

from __future__ import annotations

import re
from typing import Any

from .exits import WrongValue

_TOKEN = re.compile(r"\s*(?:(?P<sign>&&|\|\||==|!=|>=|[(),])|(?P<word>[A-Za-z0-9_.\-/:@]+))")
_JOINED = {"&&": "and", "||": "or"}
_COMPARED = {"==": "eq", ">=": "ge"}
#: Functions and how many arguments they take.
_FUNCTIONS = {"name": 0, "type": 0, "tag": 1, "contains": 2}
#: How deep parentheses may nest.
_DEEPEST = 50


def compiled(text: str) -> dict[str, Any]:
    """
    The tree of a query.

    :raises WrongValue: it is no query; the reason says where.
    """
    query = _Query(text)
    tree = query.joined(0)
    if query.ahead:
        raise query.unexpected()
    return tree


class _Query:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self.ahead = ""
        self._next()

    def _next(self) -> str:
        taken, rest = self.ahead, self._text[self._place :]
        found = _TOKEN.match(rest)
        if found is None and rest.strip():
            raise WrongValue(f"query: cannot read {rest.strip()!r}")
        self.ahead = found[0].strip() if found else ""
        self._place += found.end() if found else len(rest)
        return taken

    def unexpected(self) -> WrongValue:
        return WrongValue(f"query: unexpected {self.ahead!r}" if self.ahead else "query: it ends too early")

    def joined(self, depth: int) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise WrongValue("query: it nests too deep")
        left = self._compared(depth)
        while self.ahead in _JOINED:
            left = {_JOINED[self._next()]: [left, self._compared(depth)]}
        return left

    def _compared(self, depth: int) -> dict[str, Any]:
        left = self._factor(depth)
        while self.ahead in _COMPARED:
            left = {_COMPARED[self._next()]: [left, self._factor(depth)]}
        if self.ahead == "!=":
            raise WrongValue("query: the metrics service has no operator !=")
        return left

    def _factor(self, depth: int) -> dict[str, Any]:
        if self.ahead == "(":
            self._next()
            inner = self.joined(depth + 1)
            self._expect(")")
            return inner
        if not self.ahead or not _TOKEN.fullmatch(self.ahead) or self.ahead in "&&||==!=>=(),":
            raise self.unexpected()
        word = self._next()
        if self.ahead == "(":
            return self._function(word, depth)
        return {"const": [_constant(word)]}

    def _function(self, name: str, depth: int) -> dict[str, Any]:
        self._expect("(")
        args: list[dict[str, Any]] = []
        while self.ahead != ")":
            if args:
                self._expect(",")
            args.append(self.joined(depth + 1))
        self._expect(")")
        if name not in _FUNCTIONS:
            raise WrongValue(f"query: unknown function {name}; known are {', '.join(_FUNCTIONS)}")
        if len(args) != _FUNCTIONS[name]:
            raise WrongValue(f"query: {name} takes {_FUNCTIONS[name]} arguments, not {len(args)}")
        if name == "tag":
            if "const" not in args[0]:
                raise WrongValue("query: tag takes a word")
            return {"tag": [str(args[0]["const"][0])]}
        return {name: args}

    def _expect(self, sign: str) -> None:
        if self.ahead != sign:
            raise self.unexpected()
        self._next()


def _constant(word: str) -> str | float:
    try:
        return float(word) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", word) else word
    except ValueError:
        return word
