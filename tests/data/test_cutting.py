"""Far records are told from a city's own, wherever the city lies."""

from __future__ import annotations

import numpy as np
import pytest

from hf_mobility.data import DataError
from hf_mobility.data.cutting import refuse_strays


@pytest.mark.parametrize("middle", [11.0, 180.0])
def test_one_stray_record_is_refused_also_across_180_degrees(middle: float) -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.normal(-17, 0.02, 500), (rng.normal(middle, 0.02, 500) + 180) % 360 - 180
    refuse_strays(lat, lon)
    lat[7] = -30.0
    with pytest.raises(DataError, match="stretch the box from"):
        refuse_strays(lat, lon)
