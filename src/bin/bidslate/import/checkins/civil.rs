//! Civil date and time, without zones: as much of a calendar as check-ins need.

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Seconds since 1970-01-01 00:00:00, local.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// Reads `YYYY-MM-DD HH:MM:SS`; `None` where it is anything else or no such day.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(' ')?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let month_length = match month {
            2 => 28 + i64::from((year % 4 == 0 && year % 100 != 0) || year % 400 == 0),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        let valid = (1..=month_length).contains(&day) && hour < 24 && minute < 60 && second < 60;
        valid.then(|| Self(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second))
    }

    /// Days since 1970-01-01.
    pub fn day(self) -> i64 {
        self.0.div_euclid(86_400)
    }

    /// 0 to 1439.
    pub fn minute_of_day(self) -> i64 {
        self.0.rem_euclid(86_400) / 60
    }

    /// 0 to 23.
    pub fn hour(self) -> i64 {
        self.minute_of_day() / 60
    }

    /// 0 is Monday.
    pub fn weekday(self) -> i64 {
        // 1970-01-01 was a Thursday.
        (self.day() + 3).rem_euclid(7)
    }

    /// English name of the weekday.
    pub fn weekday_name(self) -> &'static str {
        DAYS[self.weekday() as usize]
    }

    /// Seconds from `earlier` to this moment.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

/// Three unsigned numbers of the given digits, apart by `separator`.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (slot, n) in out.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != n || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Days since 1970-01-01 in the Gregorian calendar: years counted from March, so that the leap day comes last
/// and the days before a month are linear in it.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_known_days() {
        let known = [
            ("1970-01-01 00:00:00", 0, "Thursday"),
            ("2000-02-29 12:00:00", 951_825_600, "Tuesday"),
            ("2012-11-12 05:17:18", 1_352_697_438, "Monday"),
            ("2013-03-01 23:59:59", 1_362_182_399, "Friday"),
        ];
        for (text, seconds, day) in known {
            let moment = Moment::parse(text).unwrap();
            assert_eq!((moment.0, moment.weekday_name()), (seconds, day), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "2012-11-12",
            "2012-02-30 00:00:00",
            "2013-02-29 00:00:00",
            "1900-02-29 00:00:00",
            "2012-13-01 00:00:00",
            "2012-00-01 00:00:00",
            "2012-11-12 24:00:00",
            "2012-11-12 05:60:00",
            "2012-11-12 05:17",
            "2012-11-12 05:17:18Z",
            "12-11-12 05:17:18",
            "2012-11-12 +5:17:18",
        ] {
            assert_eq!(Moment::parse(text), None, "{text:?}");
        }
    }
}
