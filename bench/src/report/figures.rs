//! Numbers as people read them.

/// Three digits that say something, and separators between thousands: `0.263`, `18.4`, `1,264`.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size == 0.0 => 0,
        _ if size < 0.1 => 4,
        _ if size < 1.0 => 3,
        _ if size < 10.0 => 2,
        _ if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    match text.split_once('.') {
        Some(_) => text,
        None => separated(&text),
    }
}

/// A whole number with separators between thousands.
pub fn count(value: u64) -> String {
    separated(&value.to_string())
}

/// So many of something: `1 turn`, `2,000 turns`.
pub fn some(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number))
}

fn separated(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

/// A number of bytes: `24 bytes`, `1 KiB`, `4.3 GiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| value >= *size) {
        Some((unit, size)) if value.is_multiple_of(*size) => {
            format!("{} {unit}", count(value / size))
        }
        Some((unit, size)) => format!("{:.1} {unit}", value as f64 / *size as f64),
        None => format!("{value} bytes"),
    }
}

/// A duration in microseconds, as milliseconds without zeros at its end: `0.25 ms`.
pub fn milliseconds(us: f64) -> String {
    format!("{} ms", plain(us / 1e3))
}

/// A number without zeros at its end.
pub fn plain(value: f64) -> String {
    if value.abs() >= 1e3 {
        return significant(value);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A moment in milliseconds since 1970: `2026-11-21 19:06 UTC`.
pub fn moment(ms: i64) -> String {
    let minutes = ms.div_euclid(60_000);
    let (days, minute) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
    // Years that begin in March end with the day that leap years add.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        let shown = |value| significant(value);
        assert_eq!(shown(0.0), "0");
        assert_eq!(shown(0.012_34), "0.0123");
        assert_eq!(shown(0.2634), "0.263");
        assert_eq!(shown(2.634), "2.63");
        assert_eq!(shown(26.34), "26.3");
        assert_eq!(shown(263.4), "263");
        assert_eq!(shown(-1_234_567.0), "-1,234,567");
        assert_eq!(count(1000), "1,000");
        assert_eq!((some(1, "turn"), some(2, "turn")), ("1 turn".into(), "2 turns".into()));
    }

    #[test]
    fn bytes_and_durations_have_the_unit_that_fits() {
        assert_eq!(bytes(100), "100 bytes");
        assert_eq!(bytes(1024), "1 KiB");
        assert_eq!(bytes(1_000_000), "976.6 KiB");
        assert_eq!(bytes(8 << 30), "8 GiB");
        assert_eq!(milliseconds(250.0), "0.25 ms");
        assert_eq!(milliseconds(2e6), "2,000 ms");
        assert_eq!(plain(20_000.0), "20,000");
    }

    #[test]
    fn moments_are_dates() {
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(moment(1_795_287_971_000), "2026-11-21 19:06 UTC");
        assert_eq!(moment(-60_000), "1969-12-31 23:59 UTC");
    }
}
