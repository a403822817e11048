//! What is used and what it costs: counts of records, bytes and object-store requests, prices, and calendar months.
//!
//! Money is counted in nanodollars (a thousand-millionth of a US dollar), so that sums are exact and the same everywhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Requests that were sent to an object store, retries included, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct StoreRequests {
    /// Writes of one object, conditional ones too.
    pub put: u64,
    /// Reads of an object or a range of one.
    pub get: u64,
    /// Questions for an object without its bytes.
    pub head: u64,
    /// Pages of listings.
    pub list: u64,
    /// Deletions, each of up to 1,000 objects.
    pub delete: u64,
}

impl StoreRequests {
    /// Whether nothing was sent.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        [self.put, self.get, self.head, self.list, self.delete].into_iter().fold(0, u64::saturating_add)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            put: self.put.saturating_add(other.put),
            get: self.get.saturating_add(other.get),
            head: self.head.saturating_add(other.head),
            list: self.list.saturating_add(other.list),
            delete: self.delete.saturating_add(other.delete),
        }
    }

    /// An estimate of the part that falls to somebody who caused `part` of `whole`: requests that write, list and delete by
    /// the bytes in, those that read by the bytes out. Rounded down.
    #[must_use]
    pub fn share(self, part: &Traffic, whole: &Traffic) -> Self {
        let (written, read) = ((part.bytes_in, whole.bytes_in), (part.bytes_out, whole.bytes_out));
        let of = |count, (part, whole)| muldiv(count, part, whole);
        Self {
            put: of(self.put, written),
            get: of(self.get, read),
            head: of(self.head, read),
            list: of(self.list, written),
            delete: of(self.delete, written),
        }
    }
}

/// `count · part / whole` without overflow; nothing of nothing.
fn muldiv(count: u64, part: u64, whole: u64) -> u64 {
    let share = (u128::from(count) * u128::from(part.min(whole))).checked_div(u128::from(whole));
    share.and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

/// Records that went in and out, with the bytes of their batches as they travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Traffic {
    /// Records that were appended; repeats are not counted again.
    pub records_in: u64,
    /// Bytes of their batches.
    pub bytes_in: u64,
    /// Records in the batches that fetches were answered with.
    pub records_out: u64,
    /// Bytes of these batches.
    pub bytes_out: u64,
}

impl Traffic {
    /// Whether nothing moved.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            records_in: self.records_in.saturating_add(other.records_in),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            records_out: self.records_out.saturating_add(other.records_out),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
        }
    }
}

/// What things cost, in nanodollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prices {
    /// One request that writes.
    pub put: u64,
    /// One request that reads.
    pub get: u64,
    /// One request for an object without its bytes.
    pub head: u64,
    /// One page of a listing.
    pub list: u64,
    /// One deletion.
    pub delete: u64,
    /// One GiB kept for a month.
    pub gib_month: u64,
}

impl Default for Prices {
    /// The list prices of S3 Standard in us-east-1 that `docs/cost.md` names with their date.
    fn default() -> Self {
        Self { put: 5_000, get: 400, head: 400, list: 5_000, delete: 0, gib_month: 23_000_000 }
    }
}

impl Prices {
    /// What requests cost.
    pub fn of_requests(&self, requests: &StoreRequests) -> Money {
        let of = |count: u64, price: u64| u128::from(count) * u128::from(price);
        Money(
            of(requests.put, self.put)
                + of(requests.get, self.get)
                + of(requests.head, self.head)
                + of(requests.list, self.list)
                + of(requests.delete, self.delete),
        )
    }

    /// What it costs to keep so many bytes for a month.
    pub fn of_month(&self, bytes: u64) -> Money {
        Money((u128::from(bytes) * u128::from(self.gib_month)) >> 30)
    }
}

/// An amount in nanodollars. Shown, and written in JSON, as dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub u128);

impl Money {
    /// The amount in dollars, as near as a floating-point number gets.
    #[expect(clippy::cast_precision_loss, reason = "nobody is billed by this number")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cents do for a bill, and a hundredth of a cent tells small things apart.
        let parts = self.0.div_ceil(100_000);
        write!(f, "{}.{:04}", parts / 10_000, parts % 10_000)
    }
}

/// A calendar month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Month(i32);

impl Month {
    /// The month of a time.
    pub fn of(time: Timestamp) -> Self {
        // Years begin in March, so that leap days come last; 400 years have 146,097 days, the first of them in year 0.
        let days = time.millis().div_euclid(86_400_000).saturating_add(719_468);
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let months = (era * 400 + year) * 12 + from_march + 2;
        Self(i32::try_from(months).unwrap_or(if months < 0 { i32::MIN } else { i32::MAX }))
    }

    /// The one before.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        for (seconds, month) in [
            (0, "1970-01"),
            (-1, "1969-12"),
            (951_782_399, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_709_251_199, "2024-02"),
            (1_709_251_200, "2024-03"),
            (1_798_761_599, "2026-12"),
            (1_798_761_600, "2027-01"),
            (4_107_542_399, "2100-02"),
            (4_107_542_400, "2100-03"),
        ] {
            assert_eq!(Month::of(Timestamp::from_millis(seconds * 1_000)).to_string(), month, "{seconds}");
        }
        let january = Month::of(Timestamp::from_millis(1_798_761_600_000));
        assert_eq!(january.before().to_string(), "2026-12");
        assert!(Month::of(Timestamp::MIN) < january && january < Month::of(Timestamp::from_millis(i64::MAX)));
    }

    #[test]
    fn a_bill_is_the_sum_of_its_lines() {
        let prices = Prices::default();
        let requests =
            StoreRequests { put: 1_000_000, get: 2_000_000, head: 500_000, list: 1_000, delete: 9 };
        // 5.00 + 0.80 + 0.20 + 0.005
        assert_eq!(prices.of_requests(&requests), Money(6_005_000_000));
        assert_eq!(prices.of_requests(&requests).to_string(), "6.0050");
        assert_eq!(prices.of_month(100 << 30).to_string(), "2.3000");
        assert_eq!(Money(1).to_string(), "0.0001", "something is never shown as nothing");
        let all = StoreRequests { put: u64::MAX, get: u64::MAX, head: 1, list: 1, delete: 1 };
        assert!(prices.of_requests(&all) > Money(0), "no overflow");
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_whole(puts in any::<u64>(), gets in any::<u64>(), parts in proptest::collection::vec((0..u64::MAX / 8, 0..u64::MAX / 8), 1..8)) {
            let traffic = |(bytes_in, bytes_out): (u64, u64)| Traffic { bytes_in, bytes_out, ..Traffic::default() };
            let whole = parts.iter().map(|part| traffic(*part)).fold(Traffic::default(), Traffic::plus);
            let requests = StoreRequests { put: puts, get: gets, head: 1, list: puts, delete: 7 };
            let (mut put, mut get) = (0_u128, 0_u128);
            for part in &parts {
                let share = requests.share(&traffic(*part), &whole);
                (put, get) = (put + u128::from(share.put), get + u128::from(share.get));
            }
            prop_assert!(put <= u128::from(puts) && get <= u128::from(gets));
            prop_assert_eq!(requests.share(&whole, &whole).put, if whole.bytes_in == 0 { 0 } else { puts });
        }
    }
}
