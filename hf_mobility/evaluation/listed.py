"""What the city files of a checkpoint list of the people behind them: places, homes, pairs of home and work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..tokenization.city_files import CITY_FILE, TABLE_FILE, Contents, read_city_files
from ..tokenization.conditions_mstar import ConditionTables
from ..tokenization.poi import NEVER_SEEN


@dataclass(frozen=True, eq=False)
class ListedCity:
    """places: with id and coordinates. visited: of them, with a level of how often they were visited.

    people: behind each home (per group), pair and class of M-STAR's conditions, kind -> (n,) int64, each at least 1;
    empty for other cities. knows_people: False where these are weeks, as in files of earlier releases. weeks: typical
    weeks of single people (medoids), their places numbered in the order of the first visit.
    """

    places: int
    visited: int
    people: dict[str, np.ndarray]
    knows_people: bool
    weeks: int

    @classmethod
    def of_folder(cls, folder: str | Path) -> ListedCity | None:
        """None where no city lies there.

        Raises:
            DataError: damaged files.
        """
        files = Path(folder) / CITY_FILE, Path(folder) / TABLE_FILE
        return cls.of_contents(read_city_files(*files)) if all(path.is_file() for path in files) else None

    @classmethod
    def of_contents(cls, contents: Contents) -> ListedCity:
        header, arrays = contents
        people: dict[str, np.ndarray] = {}
        tables = ConditionTables.from_contents(header, arrays)
        if tables is not None:
            homes, pairs, classes = (table[table > 0] for table in tables.people().values())
            people = {"homes": homes, "pairs of home and work": pairs, "movement classes": classes}
        return cls(
            places=len(header["location_ids"]),
            visited=int((arrays["popularity"] != NEVER_SEEN).sum()),
            people=people,
            knows_people=tables is not None and tables.knows_people,
            weeks=len(arrays.get("medoids", ())),
        )

    def sentences(self) -> list[str]:
        """For a card and before a push."""
        said = []
        if self.places:
            said.append(
                f"The city saved here lists {self.places:,} places by id and coordinates, {self.visited:,} of them "
                "with a level of how often they were visited. The files do not say by how many people. A place may be "
                "one person's home: do not publish the city if such places are private."
            )
        if self.people:
            counts = ", ".join(f"{len(people):,} {kind}" for kind, people in self.people.items())
            fewest = min((int(people.min()) for people in self.people.values() if len(people)), default=0)
            one, many = ("person", "people") if self.knows_people else ("week", "weeks")
            unknown = "" if self.knows_people else "; the files do not say of how many people"
            said.append(
                f"The conditions of M-STAR saved here list {counts}. The smallest count is of {fewest:,} "
                f"{one if fewest == 1 else many}{unknown}."
            )
        if self.weeks:
            said.append(
                f"The files hold {self.weeks:,} typical weeks. Each is the week of one training user, its places "
                "numbered in the order of the first visit."
            )
        return said
