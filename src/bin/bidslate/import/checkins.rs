//! Reading the check-ins: every row checked, users found, places numbered.

mod civil;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::Path;

use anyhow::{anyhow, bail, ensure};

pub use civil::Moment;

/// The weather of a check-in, by index; the `weather` context feature.
pub const WEATHER: [&str; 6] = ["Unknown", "Clear", "Clouds", "Rain", "Fog", "Snow"];

const COLUMNS: [&str; 10] =
    ["tid", "lat_lon", "date_time", "time", "rating", "price", "weather", "day", "root_type", "type"];

/// The check-ins of a file.
#[derive(Debug)]
pub struct CheckIns {
    /// Places, in order of first visit.
    pub places: Vec<Place>,
    /// Each user's visits in time order.
    pub users: Vec<Vec<Visit>>,
}

/// A place: a position and a category. Its facts are the same on every row that names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Category, one of some hundreds.
    pub category: String,
    /// The category's root, one of ten.
    pub root: String,
    /// 1 (cheap) to 4, where known.
    pub price_tier: Option<u8>,
    /// 0 to 10, where known.
    pub rating: Option<f64>,
    /// Where it is; never written out.
    pub position: Position,
}

/// Degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Latitude.
    pub lat: f64,
    /// Longitude.
    pub lon: f64,
}

impl Position {
    /// Kilometres east and north of a point in New York (equirectangular, good to 0.5 % across the city).
    pub fn kilometres(self) -> [f64; 2] {
        const KM_PER_DEGREE: f64 = 111.195;
        const ORIGIN: Position = Position { lat: 40.73, lon: -73.98 };
        let shrink = libm::cos(ORIGIN.lat.to_radians());
        [KM_PER_DEGREE * shrink * (self.lon - ORIGIN.lon), KM_PER_DEGREE * (self.lat - ORIGIN.lat)]
    }
}

/// One check-in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visit {
    /// Index into [`CheckIns::places`].
    pub place: usize,
    /// When.
    pub at: Moment,
    /// Index into [`WEATHER`].
    pub weather: usize,
}

/// Reads and checks a file of check-ins.
///
/// The file has no user column, but its weekly trajectories are sorted by user: one whose first day is before
/// the first day of the trajectory above it begins the next user.
///
/// # Errors
/// Names the file, line, column, value and what was expected.
pub fn read(path: &Path) -> anyhow::Result<CheckIns> {
    let file = path.display();
    let mut reader = csv::Reader::from_path(path).map_err(|e| anyhow!("{file}: {e}"))?;
    let header = reader.headers().map_err(|e| anyhow!("{file}: {e}"))?.clone();
    let columns = columns(&header).map_err(|e| anyhow!("{file}: {e}"))?;
    let mut builder = Builder::default();
    for record in reader.records() {
        let record = record.map_err(|e| anyhow!("{file}: {e}"))?;
        let line = record.position().map_or(0, |p| p.line());
        let row = Row { record: &record, columns };
        builder.add(&row).map_err(|e| anyhow!("{file}:{line}: {e}"))?;
    }
    ensure!(!builder.users.is_empty(), "{file}: holds no check-ins, expected one a line");
    Ok(CheckIns { places: builder.places, users: builder.users })
}

/// Index of each of [`COLUMNS`] in the file.
fn columns(header: &csv::StringRecord) -> anyhow::Result<[usize; COLUMNS.len()]> {
    let find = |name: &&str| header.iter().position(|h| h.trim() == *name);
    let missing: Vec<&str> = COLUMNS.iter().copied().filter(|name| find(name).is_none()).collect();
    if !missing.is_empty() {
        let found: Vec<&str> = header.iter().filter(|h| !h.is_empty()).collect();
        bail!("missing column(s) {missing:?}: the header holds {found:?}, expected {COLUMNS:?}");
    }
    let mut indices = [0; COLUMNS.len()];
    for (index, name) in indices.iter_mut().zip(&COLUMNS) {
        *index = find(name).unwrap_or_default();
    }
    Ok(indices)
}

struct Row<'a> {
    record: &'a csv::StringRecord,
    columns: [usize; COLUMNS.len()],
}

impl Row<'_> {
    fn text(&self, column: &str) -> &str {
        let index = COLUMNS.iter().position(|c| *c == column).map(|i| self.columns[i]);
        index.and_then(|i| self.record.get(i)).unwrap_or_default().trim()
    }

    /// The column through `parse`, or an error naming the column, its value and what was `expected`.
    fn parse<T>(
        &self,
        column: &str,
        expected: impl Display,
        parse: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let text = self.text(column);
        parse(text).ok_or_else(|| anyhow!("column `{column}`: is {text:?}, expected {expected}"))
    }

    fn name(&self, column: &str) -> anyhow::Result<String> {
        self.parse(column, "a name", |s| (!s.is_empty()).then(|| s.to_owned()))
    }

    fn place(&self) -> anyhow::Result<Place> {
        Ok(Place {
            category: self.name("type")?,
            root: self.name("root_type")?,
            price_tier: self.parse("price", "-1 or 1 to 4", |s| match s {
                "-1" => Some(None),
                _ => s.parse().ok().filter(|tier| (1..=4).contains(tier)).map(Some),
            })?,
            rating: self.parse("rating", "-1 or 0 to 10", |s| match s.parse().ok()? {
                -1.0 => Some(None),
                rating => (0.0..=10.0).contains(&rating).then_some(Some(rating)),
            })?,
            position: self.parse("lat_lon", "latitude and longitude in degrees", position)?,
        })
    }

    fn moment(&self) -> anyhow::Result<Moment> {
        let at = self.parse("date_time", "YYYY-MM-DD HH:MM:SS", Moment::parse)?;
        let minutes = at.minute_of_day();
        self.parse("time", format_args!("{minutes}, the minutes of `date_time`"), |s| {
            (s.parse() == Ok(minutes)).then_some(())
        })?;
        let day = at.weekday_name();
        self.parse("day", format_args!("{day:?}, the day of `date_time`"), |s| (s == day).then_some(()))?;
        Ok(at)
    }
}

fn position(text: &str) -> Option<Position> {
    let (lat, lon) = text.split_once(' ')?;
    let (lat, lon): (f64, f64) = (lat.parse().ok()?, lon.trim_start().parse().ok()?);
    let on_earth = (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon);
    on_earth.then_some(Position { lat, lon })
}

/// What the rows so far amount to.
#[derive(Default)]
struct Builder {
    places: Vec<Place>,
    by_name: HashMap<(String, String), usize>,
    users: Vec<Vec<Visit>>,
    /// Every trajectory met; a trajectory is one run of rows.
    trajectories: HashSet<String>,
    trajectory: String,
    /// First day of the current trajectory.
    first_day: i64,
}

impl Builder {
    fn add(&mut self, row: &Row) -> anyhow::Result<()> {
        let at = row.moment()?;
        let weather = row
            .parse("weather", format_args!("one of {WEATHER:?}"), |s| WEATHER.iter().position(|w| *w == s))?;
        let trajectory = row.name("tid")?;
        let new_user = self.enter(trajectory, at)?;
        if !new_user && let Some(last) = self.users.last().and_then(|visits| visits.last()) {
            ensure!(
                last.at <= at,
                "column `date_time`: is {:?}, expected no earlier than the same user's visit before it",
                row.text("date_time")
            );
        }
        let place = self.place(row)?;
        if new_user {
            self.users.push(Vec::new());
        }
        if let Some(visits) = self.users.last_mut() {
            visits.push(Visit { place, at, weather });
        }
        Ok(())
    }

    /// Enters the row's trajectory; whether it begins a user.
    fn enter(&mut self, trajectory: String, at: Moment) -> anyhow::Result<bool> {
        if self.trajectory == trajectory {
            return Ok(false);
        }
        ensure!(
            self.trajectories.insert(trajectory.clone()),
            "column `tid`: is {trajectory:?} again, expected its rows together"
        );
        let new_user = self.users.is_empty() || at.day() < self.first_day;
        self.first_day = at.day();
        self.trajectory = trajectory;
        Ok(new_user)
    }

    fn place(&mut self, row: &Row) -> anyhow::Result<usize> {
        let place = row.place()?;
        match self.by_name.entry((row.text("lat_lon").to_owned(), place.category.clone())) {
            Entry::Occupied(entry) => {
                let known = &self.places[*entry.get()];
                for (column, same) in [
                    ("root_type", known.root == place.root),
                    ("price", known.price_tier == place.price_tier),
                    ("rating", known.rating == place.rating),
                ] {
                    ensure!(
                        same,
                        "column `{column}`: is {:?}, expected what the place's first row says",
                        row.text(column)
                    );
                }
                Ok(*entry.get())
            }
            Entry::Vacant(entry) => {
                self.places.push(place);
                Ok(*entry.insert(self.places.len() - 1))
            }
        }
    }
}
