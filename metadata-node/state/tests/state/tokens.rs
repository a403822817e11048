//! What access tokens promise, told as stories: what is kept of them, who can always get in, and what a snapshot holds.
//! Every step also checks all invariants.

use std::time::Duration;

use carnax_core::access::{Grant, Names, Operation, Token, TokenId};
use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{
    AlterToken, CreateToken, FindToken, ListTokens, RevokeToken, TokenDescription, TouchToken, Validity,
};
use carnax_core::problem::Problem;
use carnax_core::quota::Quotas;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, Reply, answer, invariant};

use crate::bytes::golden;
use crate::bytes_of_maintenance as maintenance;
use crate::support::{Cluster, START, bytes_of, code, read_back};

pub(crate) fn token(id: u128) -> Token {
    Token::from_random(id, [id, id])
}

fn reader() -> Vec<Grant> {
    let topics = Some(Names::Prefix("flights".to_owned()));
    vec![Grant { operations: [Operation::Read].into(), topics, groups: None, cluster: false }]
}

pub(crate) fn request(token: &Token, grants: Vec<Grant>) -> CreateToken {
    CreateToken {
        id: token.id().clone(),
        hash: token.hash(),
        description: "of a test".to_owned(),
        grants,
        expires: None,
        quotas: Quotas::default(),
        only_without_admin: false,
    }
}

/// Each command that there is for tokens; the first and the last make the tokens that stay.
pub(crate) fn commands_of_tokens() -> Vec<Command> {
    let (admin, gone, kept) = (token(1), token(2), token(3));
    let quotas = Quotas { produce_bytes_per_second: Some(1_000), ..Quotas::default() };
    let expires = Some(Timestamp::from_millis(START + 1_000_000_000));
    vec![
        Command::CreateToken(request(&admin, vec![Grant::admin()])),
        Command::CreateToken(request(&gone, reader())),
        Command::RevokeToken(RevokeToken { id: gone.id().clone() }),
        Command::CreateToken(CreateToken { expires, quotas, ..request(&kept, reader()) }),
        Command::TouchToken(TouchToken { id: kept.id().clone() }),
        Command::AlterToken(AlterToken {
            id: kept.id().clone(),
            description: Some("altered".to_owned()),
            grants: None,
            valid: Some(Validity::Unlimited),
            quotas: None,
        }),
    ]
}

fn create(cluster: &mut Cluster, request: CreateToken) -> Result<TokenDescription, Problem> {
    match cluster.one(Command::CreateToken(request))? {
        Reply::TokenCreated(created) => Ok(created),
        other => panic!("{other:?}"),
    }
}

fn alter(
    cluster: &mut Cluster,
    id: &TokenId,
    change: impl FnOnce(&mut AlterToken),
) -> Result<TokenDescription, Problem> {
    let mut request =
        AlterToken { id: id.clone(), description: None, grants: None, valid: None, quotas: None };
    change(&mut request);
    match cluster.one(Command::AlterToken(request))? {
        Reply::TokenAltered(altered) => Ok(altered),
        other => panic!("{other:?}"),
    }
}

fn revoke(cluster: &mut Cluster, id: &TokenId) -> Result<Reply, Problem> {
    cluster.one(Command::RevokeToken(RevokeToken { id: id.clone() }))
}

fn ids(cluster: &Cluster) -> Vec<TokenId> {
    let page = answer::list_tokens(&cluster.state, &ListTokens { after: None, limit: 1_000 }).unwrap();
    page.tokens.into_iter().map(|token| token.id).collect()
}

#[test]
fn a_token_is_found_with_its_hash_until_it_is_revoked() {
    let mut cluster = Cluster::new();
    let (admin, reading) = (token(1), token(2));
    create(&mut cluster, request(&admin, vec![Grant::admin()])).unwrap();
    let created = create(&mut cluster, request(&reading, reader())).unwrap();
    assert_eq!(create(&mut cluster, request(&reading, reader())).unwrap(), created, "again is once");
    let other = CreateToken { hash: token(9).hash(), ..request(&reading, reader()) };
    assert_eq!(create(&mut cluster, other).unwrap_err().code, ErrorCode::Conflict);

    let find =
        |cluster: &Cluster| answer::find_token(&cluster.state, &FindToken { id: Some(reading.id().clone()) });
    let found = find(&cluster);
    let known = found.token.unwrap();
    assert!(known.hash.is_of(&reading) && !known.hash.is_of(&admin));
    assert_eq!((known.description, found.count), (created, 2));
    revoke(&mut cluster, reading.id()).unwrap();
    assert_eq!((find(&cluster).token, find(&cluster).count), (None, 1));
    assert_eq!(revoke(&mut cluster, reading.id()).unwrap_err().code, ErrorCode::TokenNotFound);
}

#[test]
fn an_administrator_can_always_get_in() {
    let mut cluster = Cluster::new();
    let (first, second) = (token(1), token(2));
    let early = create(&mut cluster, request(&second, reader())).unwrap_err();
    assert_eq!(early.code, ErrorCode::InvalidValue);
    create(&mut cluster, request(&first, vec![Grant::admin()])).unwrap();
    assert_eq!(revoke(&mut cluster, first.id()).unwrap_err().code, ErrorCode::Conflict);
    let lesser = alter(&mut cluster, first.id(), |request| request.grants = Some(reader()));
    assert_eq!(lesser.unwrap_err().code, ErrorCode::Conflict);

    // The second one expires in time: then there is none beside the first.
    let expires = Some(Timestamp::from_millis(cluster.now + 1_000));
    create(&mut cluster, CreateToken { expires, ..request(&second, vec![Grant::admin()]) }).unwrap();
    cluster.now += 1_000;
    assert_eq!(revoke(&mut cluster, first.id()).unwrap_err().code, ErrorCode::Conflict);
    alter(&mut cluster, second.id(), |request| request.valid = Some(Validity::Unlimited)).unwrap();
    revoke(&mut cluster, first.id()).unwrap();
    assert_eq!(ids(&cluster), [second.id().clone()]);
}

#[test]
fn the_first_administrator_is_made_only_where_there_is_none() {
    let mut cluster = Cluster::new();
    let (first, second) = (token(1), token(2));
    let bootstrap =
        |token: &Token| CreateToken { only_without_admin: true, ..request(token, vec![Grant::admin()]) };
    create(&mut cluster, bootstrap(&first)).unwrap();
    create(&mut cluster, bootstrap(&first)).unwrap();
    assert_eq!(create(&mut cluster, bootstrap(&second)).unwrap_err().code, ErrorCode::Conflict);
    // It serves as a way back in, too, when the last administrator's token has expired.
    let soon = Validity::Until(Timestamp::from_millis(cluster.now + 1_000));
    alter(&mut cluster, first.id(), |request| request.valid = Some(soon)).unwrap();
    cluster.now += 1_000;
    create(&mut cluster, bootstrap(&second)).unwrap();
    assert_eq!(ids(&cluster).len(), 2);
}

#[test]
fn the_last_use_is_known_to_the_hour() {
    let mut cluster = Cluster::new();
    let admin = token(1);
    create(&mut cluster, request(&admin, vec![Grant::admin()])).unwrap();
    let mut used = Vec::new();
    for wait in [10, 10, i64::try_from(limits::TOKEN_USE_GRAIN.as_millis()).unwrap(), 10] {
        cluster.now += wait;
        match cluster.one(Command::TouchToken(TouchToken { id: admin.id().clone() })).unwrap() {
            Reply::TokenTouched(touched) => used.push(touched.last_used),
            other => panic!("{other:?}"),
        }
    }
    assert!(used[0] == used[1] && used[2].since(used[0]) >= Duration::from_secs(3_600) && used[2] == used[3]);
}

#[test]
fn what_is_no_token_is_refused_and_leaves_no_trace() {
    let mut cluster = Cluster::new();
    create(&mut cluster, request(&token(1), vec![Grant::admin()])).unwrap();
    let good = request(&token(2), reader());
    let past = Some(Timestamp::from_millis(cluster.now));
    let wrong = [
        CreateToken { grants: Vec::new(), ..good.clone() },
        CreateToken { grants: vec![reader().remove(0); limits::TOKEN_GRANTS_MAX + 1], ..good.clone() },
        CreateToken { grants: vec![Grant { topics: None, ..reader().remove(0) }], ..good.clone() },
        CreateToken { description: "x".repeat(limits::TOKEN_DESCRIPTION_BYTES_MAX + 1), ..good.clone() },
        CreateToken { expires: past, ..good },
    ];
    for request in wrong {
        assert_eq!(code(create(&mut cluster, request)), ErrorCode::InvalidValue);
    }
    assert_eq!(ids(&cluster), [token(1).id().clone()]);
}

#[test]
fn tokens_are_listed_page_by_page_and_outlive_a_snapshot() {
    let mut cluster = Cluster::new();
    for id in 1..=5 {
        let grants = if id == 1 { vec![Grant::admin()] } else { reader() };
        create(&mut cluster, request(&token(id), grants)).unwrap();
    }
    let restored = read_back(&bytes_of(&cluster.state)).unwrap();
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = answer::list_tokens(&restored, &ListTokens { after, limit: 2 }).unwrap();
        listed.extend(page.tokens.iter().map(|token| token.id.clone()));
        after = listed.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, ids(&cluster));
    assert_eq!(listed.len(), 5);
    assert_eq!(bytes_of(&restored), bytes_of(&cluster.state));
    for limit in [0, limits::TOKENS_PAGE_MAX + 1] {
        assert!(answer::list_tokens(&restored, &ListTokens { after: None, limit }).is_err());
    }
}

fn example() -> Cluster {
    let mut cluster = maintenance::example();
    cluster.one(Command::RaiseLevel { to: FeatureLevel(6) }).unwrap();
    cluster.level = FeatureLevel(6);
    for command in commands_of_tokens() {
        cluster.one(command).unwrap();
    }
    cluster
}

fn example_entry() -> Entry {
    let mut commands = commands_of_tokens();
    commands.push(Command::RaiseLevel { to: FeatureLevel(6) });
    Entry { level: FeatureLevel(6), log_time: Timestamp::from_millis(START), commands }
}

#[test]
fn golden_files_of_tokens_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-tokens.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry());
    assert!(example_entry().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-tokens.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example().state) == bytes);
    assert!(bytes.windows(13).any(|part| part == b"access_tokens"), "tokens have rows");
}

#[test]
#[ignore = "writes the golden files; run it once for a new version"]
fn write_golden_files_of_tokens() {
    std::fs::write(golden("entry-1-tokens.bin"), example_entry().encode()).unwrap();
    std::fs::write(golden("snapshot-1-tokens.bin"), bytes_of(&example().state)).unwrap();
}
