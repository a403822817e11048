//! The messages about access tokens: what was sent once is understood for ever.

use carnax_core::access::{Grant, Names, Operation, Token, TokenId};
use carnax_core::metadata::*;
use carnax_core::quota::Quotas;

use crate::messages::{check, time};

fn token() -> Token {
    Token::from_random(1, [2, 3])
}

fn id() -> TokenId {
    token().id().clone()
}

fn grants() -> Vec<Grant> {
    let read = Grant {
        operations: [Operation::Read, Operation::Write].into(),
        topics: Some(Names::Prefix("flights".to_owned())),
        groups: None,
        cluster: false,
    };
    let group = Grant {
        operations: [Operation::Group].into(),
        topics: None,
        groups: Some(Names::Name("billing".to_owned())),
        cluster: false,
    };
    vec![
        Grant::admin(),
        read,
        group,
        Grant { operations: [Operation::Describe].into(), cluster: true, ..grant() },
    ]
}

fn grant() -> Grant {
    Grant { operations: [].into(), topics: None, groups: None, cluster: false }
}

fn quotas() -> Quotas {
    Quotas {
        produce_bytes_per_second: Some(1),
        fetch_requests_per_second: Some(u64::MAX),
        ..Quotas::default()
    }
}

fn description() -> TokenDescription {
    TokenDescription {
        id: id(),
        description: "of ops".to_owned(),
        grants: grants(),
        created: time(1_700_000_000_000),
        expires: Some(time(1_800_000_000_000)),
        last_used: Some(time(1_700_000_000_001)),
        quotas: quotas(),
    }
}

#[test]
fn token_calls_are_understood_as_ever() {
    check(
        "CreateToken",
        &CreateToken {
            id: id(),
            hash: token().hash(),
            description: "of ops".to_owned(),
            grants: grants(),
            expires: Some(time(1_800_000_000_000)),
            quotas: quotas(),
            only_without_admin: true,
        },
    );
    check(
        "AlterToken",
        &AlterToken {
            id: id(),
            description: Some(String::new()),
            grants: Some(grants()),
            valid: Some(Validity::Until(time(1_800_000_000_000))),
            quotas: Some(quotas()),
        },
    );
    let unlimited = Some(Validity::Unlimited);
    check(
        "AlterToken-unlimited",
        &AlterToken { id: id(), description: None, grants: None, valid: unlimited, quotas: None },
    );
    check("RevokeToken", &RevokeToken { id: id() });
    check("RevokedToken", &RevokedToken { id: id() });
    check("TouchToken", &TouchToken { id: id() });
    check("TokenTouched", &TokenTouched { last_used: time(1_700_000_000_001) });
    check("ListTokens", &ListTokens { after: Some(id()), limit: 1_000 });
    check("TokenPage", &TokenPage { tokens: vec![description()], more: true });
    check("FindToken", &FindToken { id: Some(id()) });
    let known = Some(KnownToken { hash: token().hash(), description: description() });
    check("TokenFound", &TokenFound { token: known, count: 7, log_time: time(1_700_000_000_002) });
    check("TokenFound-none", &TokenFound { token: None, count: 0, log_time: time(1_700_000_000_002) });
}
