//! Moments, as people write them and as records hold them: milliseconds since 1970, UTC.

const DAY_MS: i64 = 86_400_000;

/// Reads milliseconds since 1970, a date (`2026-11-21`), or a moment of RFC 3339
/// (`2026-11-21T12:00:00.5+01:00`; without an offset it is UTC).
pub(super) fn parse(text: &str) -> Result<i64, String> {
    if let Ok(milliseconds) = text.parse::<i64>() {
        return Ok(milliseconds);
    }
    let wrong =
        || String::from("write a time as 2026-11-21T12:00:00Z, or in milliseconds since 1970");
    parse_moment(text).ok_or_else(wrong)
}

fn parse_moment(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-')?;
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * DAY_MS;
    match time {
        Some(time) => Some(midnight + parse_time(time)?),
        None => Some(midnight),
    }
}

/// The time of day, in UTC; milliseconds.
fn parse_time(text: &str) -> Option<i64> {
    let (time, offset_minutes) = match text.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => match text.rfind(['+', '-']) {
            Some(at) => {
                let [hours, minutes] = numbers(&text[at + 1..], ':')?;
                let offset = in_range(hours, 23)? * 60 + in_range(minutes, 59)?;
                (&text[..at], if text[at..].starts_with('-') { -offset } else { offset })
            }
            None => (text, 0),
        },
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':')?;
    let seconds =
        (in_range(hours, 23)? * 60 + in_range(minutes, 59)?) * 60 + in_range(seconds, 60)?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let milliseconds: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(seconds * 1000 + milliseconds - offset_minutes * 60_000)
}

fn in_range(number: i64, max: i64) -> Option<i64> {
    (0..=max).contains(&number).then_some(number)
}

/// Exactly `N` numbers of digits alone.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for number in &mut found {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 4 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Writes a moment as RFC 3339 with milliseconds, in UTC. Years outside 0 to 9999 as milliseconds
/// since 1970.
pub(super) fn show(timestamp_ms: i64) -> String {
    let days = timestamp_ms.div_euclid(DAY_MS);
    let in_day = timestamp_ms.rem_euclid(DAY_MS);
    let (year, month, day) = date_of(days);
    if !(0..=9999).contains(&year) {
        return timestamp_ms.to_string();
    }
    let (seconds, milliseconds) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The proleptic Gregorian calendar, counted in years that begin in March: their leap day is the
/// last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse: year, month, day.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn moments_are_read() {
        for (text, milliseconds) in [
            ("0", 0),
            ("-5", -5),
            ("1970-01-01", 0),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-11-21T12:34:56Z", 1_795_264_496_000),
            ("2026-11-21 12:34:56", 1_795_264_496_000),
            ("2026-11-21t12:34:56.5z", 1_795_264_496_500),
            ("2026-11-21T12:34:56.123456789Z", 1_795_264_496_123),
            ("2026-11-21T14:04:56+01:30", 1_795_264_496_000),
            ("2026-11-21T11:34:56-01:00", 1_795_264_496_000),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(parse(text), Ok(milliseconds), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-02-29",
            "2026-00-01",
            "2026-01-32",
            "2026-1",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.xZ",
            "2026-01-01T00:00:00+1",
            "2026-01-01T",
            "+2026-01-01",
            "2026-01-01Té",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_is_shown_as_it_is_read() {
        let mut day = days_since_1970(1890, 1, 1);
        while day < days_since_1970(2110, 1, 1) {
            let shown = show(day * DAY_MS + 12_345_678);
            assert!(shown.ends_with("T03:25:45.678Z"));
            assert_eq!(parse(&shown).unwrap(), day * DAY_MS + 12_345_678, "{shown}");
            day += 1;
        }
        assert_eq!(show(i64::MIN), i64::MIN.to_string());
        assert_eq!(show(i64::MAX), i64::MAX.to_string());
    }
}
