"""A made-up file of check-ins in the form that `bidslate import check-ins` reads; no network, no real person."""

import csv
import datetime
import sys

import numpy as np

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
KINDS = (
    ("Food", "Deli / Bodega"),
    ("Food", "Steakhouse"),
    ("Nightlife Spot", "Bar"),
    ("Shop & Service", "Bookstore"),
)
COLUMNS = ("tid", "lat_lon", "date_time", "time", "rating", "price", "weather", "day", "root_type", "type")


def rows(users=12, visits=60, places=150, seed=1):
    """Each user goes among a few favourite places, one more likely than the next, and at times to any other."""
    rng = np.random.default_rng(seed)
    where = [(40.70 + 0.0004 * i, -74.0 + 0.0007 * (i * i % 53)) for i in range(places)]
    for user in range(users):
        favourites = rng.permutation(places)[:15]
        # A user's first day is before the day on which the user above began: that is how the importer tells them apart.
        now = datetime.datetime(2012, 11, 30 - user) + datetime.timedelta(hours=1)
        for _ in range(visits):
            now += datetime.timedelta(minutes=int(rng.integers(20, 90)))
            favourite = favourites[min(int(rng.exponential(4)), 14)]
            place = int(favourite if rng.random() < 0.8 else rng.integers(places))
            root, kind = KINDS[place % len(KINDS)]
            yield (
                user, f"{where[place][0]:.6f} {where[place][1]:.6f}", now.strftime("%Y-%m-%d %H:%M:%S"),
                now.hour * 60 + now.minute, 8.2 if place % 3 else -1, 1 + place % 4 if place % 2 else -1, "Clear",
                WEEKDAYS[now.weekday()], root, kind,
            )  # fmt: skip


def write(path, **sizes):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(**sizes))


if __name__ == "__main__":
    write(sys.argv[1])
