//! The headers by which a request is told from its repeats.

use carnax_core::http::header;
use carnax_core::metadata::{IdempotencyStamp, ProducerStamp, SequenceMode};
use carnax_core::name::IdempotencyKey;
use carnax_core::problem::Problem;
use http::HeaderMap;

use super::parameters::{invalid, shown, text_header};
use crate::access::Caller;
use crate::append::accept::Stamp;

/// Headers that say nothing without a producer id.
const WITH_PRODUCER: [&str; 3] = [header::PRODUCER_EPOCH, header::SEQUENCE, header::SEQUENCE_MODE];

/// What the headers of a request say; the hash of its body is put in by [`with_hash`].
///
/// # Errors
/// `invalid_value`, naming the header.
pub(super) fn read(headers: &HeaderMap, caller: &Caller) -> Result<Stamp, Problem> {
    let key = only(headers, header::IDEMPOTENCY_KEY)?;
    let Some(producer) = only(headers, header::PRODUCER_ID)? else {
        if let Some(alone) = WITH_PRODUCER.into_iter().find(|name| headers.contains_key(*name)) {
            return Err(invalid(&format!("header {alone} says nothing without {}", header::PRODUCER_ID)));
        }
        let stamp = key.map(|key| idempotency(key, caller)).transpose()?;
        return Ok(stamp.map_or(Stamp::None, Stamp::Key));
    };
    if key.is_some() {
        let both = format!("{} and {}", header::PRODUCER_ID, header::IDEMPOTENCY_KEY);
        return Err(invalid(&format!("a request has one of the headers {both}, not both")));
    }
    let wrong = |name: &str, detail: &str| invalid(&format!("header {name}: {detail}"));
    let producer = producer.parse().map_err(|error| wrong(header::PRODUCER_ID, &format!("{error}")))?;
    let epoch = only(headers, header::PRODUCER_EPOCH)?.map(|text| {
        number(text).ok_or_else(|| {
            wrong(header::PRODUCER_EPOCH, &format!("a number from 0 to {}, not {}", u32::MAX, shown(text)))
        })
    });
    let sequence = only(headers, header::SEQUENCE)?.ok_or_else(|| {
        invalid(&format!("header {} is missing: it goes with {}", header::SEQUENCE, header::PRODUCER_ID))
    })?;
    let sequence = number(sequence).ok_or_else(|| {
        wrong(header::SEQUENCE, &format!("a number from 0, of at most 128 bits, not {}", shown(sequence)))
    })?;
    let mode = match only(headers, header::SEQUENCE_MODE)? {
        None | Some("contiguous") => SequenceMode::Contiguous,
        Some("increasing") => SequenceMode::Increasing,
        Some(other) => {
            let detail = format!("contiguous or increasing, not {}", shown(other));
            return Err(wrong(header::SEQUENCE_MODE, &detail));
        }
    };
    let epoch = epoch.transpose()?.unwrap_or(0);
    Ok(Stamp::Producer(ProducerStamp { producer, epoch, sequence, mode, body_hash: [0; 16] }))
}

/// Puts the hash of the request in, which is reckoned only where it is needed.
pub(super) fn with_hash(stamp: Stamp, hash: impl FnOnce() -> [u8; 16]) -> Stamp {
    match stamp {
        Stamp::None => Stamp::None,
        Stamp::Producer(stamp) => Stamp::Producer(ProducerStamp { body_hash: hash(), ..stamp }),
        Stamp::Key(stamp) => Stamp::Key(IdempotencyStamp { body_hash: hash(), ..stamp }),
    }
}

fn idempotency(key: &str, caller: &Caller) -> Result<IdempotencyStamp, Problem> {
    let wrong = |error| invalid(&format!("header {}: {error}", header::IDEMPOTENCY_KEY));
    let key = key.parse::<IdempotencyKey>().map_err(wrong)?;
    Ok(IdempotencyStamp { principal: caller.principal(), key, body_hash: [0; 16] })
}

/// A header that stands at most once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    if headers.get_all(name).iter().nth(1).is_some() {
        return Err(invalid(&format!("header {name} stands twice")));
    }
    text_header(headers, name)
}

/// Digits and nothing else: no sign, no white space.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
