"""Score maps as files: what is read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from automix_transfer.errors import UserError
from automix_transfer.localization.maps.score_maps import check_header, read_map, score_map


@pytest.mark.parametrize("kind", ["uint8", "int64", "float16", "bool"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (1, 1, 3, 4), (3, 4, 1)])
def test_raw_maps_have_any_type_and_axes_of_one(tmp_path, kind, shape):
    values = (np.arange(12).reshape(3, 4) * 20).astype(kind)
    np.save(tmp_path / "a.npy", values.reshape(shape))
    check_header(tmp_path, "a", 8, raw=True)
    assert np.array_equal(read_map(tmp_path, "a", 8, raw=True), score_map(values.astype(float), 8))
    with pytest.raises(UserError, match=r"a\.npy"):
        read_map(tmp_path, "a", 8)


@pytest.mark.parametrize("raw", [True, False])
def test_a_sparse_file_with_a_huge_map_is_refused_before_it_is_read(tmp_path, raw):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float64, (2**14, 2**14))
    for read in (check_header, read_map):
        with pytest.raises(UserError, match=r"a\.npy"):
            read(tmp_path, "a", 8, raw)
