"""Every attack by a token, by name."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from attacks.headers import headers
from attacks.payloads import payloads
from attacks.shapes import shapes
from attacks.signatures import signatures
from attacks.workshop import Attack, Workshop

KINDS: Mapping[str, Callable[[Workshop], Iterator[Attack]]] = MappingProxyType(
    {"shape": shapes, "header": headers, "signature": signatures, "payload": payloads}
)


def attacks(shop: Workshop, *kinds: str) -> list[Attack]:
    """Forge every token of these kinds, or of all."""
    found: dict[str, Attack] = {}
    for kind in kinds or KINDS:
        for attack in KINDS[kind](shop):
            assert attack.name not in found, f"two attacks are called {attack.name}"
            found[attack.name] = attack
    return [*found.values()]
