"""Where generated text ends: stop sequences, found without decoding everything at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]


class StopFinder:
    """Looks for stop sequences in tokens as they come.

    A stop can only end with a token whose text holds the last character of a stop, so that only after such
    tokens the end of the text is decoded.

    Parameters
    ----------
    stops : sequence of str
    decode : callable
        Tokens to text.
    """

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self._decode = decode
        self._ends = {stop[-1] for stop in self.stops}
        # Decoding one token alone may drop a space; and a token may be a part of a character's bytes.
        self._always = any(end.isspace() and end != "\n" for end in self._ends)
        self._tail = 8 + max((len(stop.encode()) for stop in self.stops), default=0)
        self._known: dict[int, bool] = {}

    def _may_end(self, token: int) -> bool:
        known = self._known.get(token)
        if known is None:
            text = self._decode([token])
            known = self._always or not text or "\ufffd" in text or any(end in text for end in self._ends)
            self._known[token] = known
        return known

    def ended(self, tokens: Sequence[int]) -> bool:
        """Whether the newest token completed a stop."""
        if not self.stops or not self._may_end(tokens[-1]):
            return False
        tail = self._decode(tokens[-self._tail :])
        return any(stop in tail for stop in self.stops)

    def cut(self, text: str) -> str:
        """The text before the stop that begins first."""
        found = [text.find(stop) for stop in self.stops]
        return text[: min((at for at in found if at >= 0), default=len(text))]
