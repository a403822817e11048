//! What was used in this month and the one before, summed over all reports.
//!
//! The sums are whole: what is not that of a topic or token which is still there shows as the difference. So there are never
//! more rows than topics and tokens.

use carnax_core::access::TokenId;
use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicId;
use carnax_core::limits;
use carnax_core::metadata::{ReportUsage, UsageMonth, UsageReported};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::usage::{Month, StoreRequests, Traffic};
use imbl::{OrdMap, OrdSet};

use crate::token::Tokens;
use crate::topic::Topics;

/// What was used in a month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) requests: StoreRequests,
    /// Of all topics, whatever became of them.
    pub(crate) traffic: Traffic,
    pub(crate) topics: OrdMap<TopicId, Traffic>,
    pub(crate) tokens: OrdMap<TokenId, Traffic>,
}

/// A process that reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reporter {
    /// The number of its last report.
    pub(crate) number: u64,
    /// When that came.
    pub(crate) at: Timestamp,
}

/// The sums, and who was heard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// The month of the last report; none: there was no report yet.
    pub(crate) month: Option<Month>,
    pub(crate) this: Period,
    pub(crate) last: Period,
    reporters: OrdMap<u128, Reporter>,
    /// The same in the order in which they are forgotten.
    by_time: OrdSet<(Timestamp, u128)>,
}

impl Period {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is not in the rows of topics.
    pub(crate) fn of_deleted_topics(&self) -> Traffic {
        rest(self.traffic, self.topics.values())
    }

    /// What is not in the rows of tokens.
    pub(crate) fn of_other_tokens(&self) -> Traffic {
        rest(self.traffic, self.tokens.values())
    }

    fn add(&mut self, report: &ReportUsage, topics: &Topics, tokens: &Tokens) {
        self.requests = self.requests.plus(report.requests);
        for (topic, traffic) in &report.topics {
            self.traffic = self.traffic.plus(*traffic);
            if topics.get(*topic).is_some() {
                let sum = self.topics.entry(*topic).or_default();
                *sum = sum.plus(*traffic);
            }
        }
        for (token, traffic) in &report.tokens {
            if tokens.contains(token) {
                let sum = self.tokens.entry(token.clone()).or_default();
                *sum = sum.plus(*traffic);
            }
        }
    }
}

impl Usage {
    /// Adds a report, once.
    pub(crate) fn report(
        &mut self,
        report: &ReportUsage,
        now: Timestamp,
        topics: &Topics,
        tokens: &Tokens,
    ) -> Result<UsageReported, Problem> {
        let max = limits::USAGE_REPORT_ROWS_MAX;
        if report.topics.len() > max || report.tokens.len() > max {
            let detail = format_args!("a report of usage has at most {max} topics and as many tokens");
            return Err(Problem::new(ErrorCode::InvalidValue, detail));
        }
        if self.reporters.get(&report.reporter).is_some_and(|known| report.number <= known.number) {
            return Ok(UsageReported { counted: false });
        }
        self.heard(report.reporter, Reporter { number: report.number, at: now });
        self.turn_to(Month::of(now));
        self.this.add(report, topics, tokens);
        Ok(UsageReported { counted: true })
    }

    /// What was used in a month, as seen at a time.
    pub(crate) fn period(&self, month: UsageMonth, now: Timestamp) -> (Month, Option<&Period>) {
        let this = Month::of(now);
        let wanted = match month {
            UsageMonth::This => this,
            UsageMonth::Last => this.before(),
        };
        let period = match self.month {
            Some(known) if known == wanted => Some(&self.this),
            Some(known) if known.before() == wanted => Some(&self.last),
            _ => None,
        };
        (wanted, period)
    }

    pub(crate) fn topic_deleted(&mut self, topic: TopicId) {
        self.this.topics.remove(&topic);
        self.last.topics.remove(&topic);
    }

    pub(crate) fn token_revoked(&mut self, token: &TokenId) {
        self.this.tokens.remove(token);
        self.last.tokens.remove(token);
    }

    /// The number of the last report of a process, as far as it is remembered.
    pub(crate) fn last_report(&self, reporter: u128) -> Option<u64> {
        self.reporters.get(&reporter).map(|reporter| reporter.number)
    }

    /// In the order of their numbers.
    pub(crate) fn reporters(&self) -> impl Iterator<Item = (&u128, &Reporter)> {
        self.reporters.iter()
    }

    /// Whether both orders name the same.
    pub(crate) fn is_sound(&self) -> bool {
        let known = |(at, id): &(Timestamp, u128)| self.reporters.get(id).is_some_and(|it| it.at == *at);
        self.reporters.len() <= limits::USAGE_REPORTERS_MAX
            && self.reporters.len() == self.by_time.len()
            && self.by_time.iter().all(known)
    }

    /// Puts back what a snapshot held; false if it is out of order or one too many.
    pub(crate) fn restore_reporter(&mut self, id: u128, reporter: Reporter) -> bool {
        let behind = self.reporters.get_max().is_none_or(|(last, _)| *last < id);
        let fits = behind && self.reporters.len() < limits::USAGE_REPORTERS_MAX;
        if fits {
            self.reporters.insert(id, reporter);
            self.by_time.insert((reporter.at, id));
        }
        fits
    }

    fn heard(&mut self, id: u128, reporter: Reporter) {
        if let Some(before) = self.reporters.insert(id, reporter) {
            self.by_time.remove(&(before.at, id));
        }
        self.by_time.insert((reporter.at, id));
        while let Some((at, oldest)) = self.by_time.get_min().copied() {
            let old = reporter.at.since(at) >= limits::USAGE_REPORTER_EXPIRY;
            if !old && self.reporters.len() <= limits::USAGE_REPORTERS_MAX {
                return;
            }
            self.by_time.remove(&(at, oldest));
            self.reporters.remove(&oldest);
        }
    }

    /// Begins a new month; log time never goes back.
    fn turn_to(&mut self, month: Month) {
        let known = self.month.replace(month);
        if known == Some(month) {
            return;
        }
        let ended = std::mem::take(&mut self.this);
        self.last = if known == Some(month.before()) { ended } else { Period::default() };
    }
}

fn rest<'a>(sum: Traffic, rows: impl Iterator<Item = &'a Traffic>) -> Traffic {
    rows.fold(sum, |rest, row| Traffic {
        records_in: rest.records_in.saturating_sub(row.records_in),
        bytes_in: rest.bytes_in.saturating_sub(row.bytes_in),
        records_out: rest.records_out.saturating_sub(row.records_out),
        bytes_out: rest.bytes_out.saturating_sub(row.bytes_out),
    })
}
