"""Hashes and random numbers that depend on ids alone: the same in every process, for every number of blocks."""

import zlib

import numpy as np
import pyarrow as pa

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014), a bijection of uint64."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def unmix(x: np.ndarray) -> np.ndarray:
    """What `mix` makes x of."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64)
        x = (x ^ (x >> np.uint64(31)) ^ (x >> np.uint64(62))) * np.uint64(pow(0x94D049BB133111EB, -1, 2**64))
        x = (x ^ (x >> np.uint64(27)) ^ (x >> np.uint64(54))) * np.uint64(pow(0xBF58476D1CE4E5B9, -1, 2**64))
        return (x ^ (x >> np.uint64(30)) ^ (x >> np.uint64(60))) - _GOLDEN


def hash_ids(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """uint64 [N] of integers or strings; 0 for null.

    Exact for integers (a bijection). Two of n strings share a hash with a probability of about n² / 2^65.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    if not pa.types.is_integer(ids.type):
        ids = ids.dictionary_encode()
        texts = np.asarray(ids.dictionary.to_pylist(), dtype=object)
        import pandas as pd  # late: it takes as long to import as all else here together

        # Public, but pandas makes it known by no import that a type checker follows.
        of_value = pd.util.hash_array(texts, categorize=False)  # pyright: ignore[reportAttributeAccessIssue]
        return np.append(of_value, np.uint64(0))[ids.indices.fill_null(len(of_value)).to_numpy()]
    if pa.types.is_unsigned_integer(ids.type):
        values = ids.fill_null(0).to_numpy().astype(np.uint64)
    else:
        values = ids.fill_null(0).cast(pa.int64()).to_numpy().view(np.uint64)
    return np.where(ids.is_null().to_numpy(zero_copy_only=False), np.uint64(0), mix(values))


def keyed_uniform(seed: int, salt: str, *keys: np.ndarray) -> np.ndarray:
    """float64 in [0, 1) [N], a function of seed, salt and the keys (uint64 [N], order matters) alone."""
    return uniform_of(keyed(seed, salt, *keys))


def keyed(seed: int, salt: str, *keys: np.ndarray) -> np.ndarray:
    """uint64 [N]: what `uniform_of` takes, of the first keys where further ones come later."""
    return _with(mix(np.uint64(seed % 2**64)) ^ np.uint64(zlib.crc32(salt.encode())), *keys)


def uniform_of(state: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """float64 in [0, 1) [N], with the keys after those of the state."""
    return (mix(_with(state, *keys)) >> np.uint64(11)) * 2.0**-53


def _with(state: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    for key in keys:
        state = mix(state) ^ key
    return state
