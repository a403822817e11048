//! Access tokens are the whole cluster's, and there is a way in from the first moment on.

use std::time::Instant;

use carnax_core::access::{Grant, Token};
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{CreateToken, FindToken, ListTokens, RevokeToken, TokenFound, TouchToken};
use carnax_core::quota::Quotas;

use crate::cluster::{PATIENCE, TestCluster};

fn token(number: u128) -> Token {
    Token::from_random(number, [number, number])
}

fn create(token: &Token) -> CreateToken {
    CreateToken {
        id: token.id().clone(),
        hash: token.hash(),
        description: "of a test".to_owned(),
        grants: vec![Grant::admin()],
        expires: None,
        quotas: Quotas::default(),
        only_without_admin: false,
    }
}

async fn find(cluster: &TestCluster, token: &Token) -> TokenFound {
    cluster.call(FindToken { id: Some(token.id().clone()) }).await.unwrap()
}

async fn until_valid(cluster: &TestCluster, token: &Token) {
    let started = Instant::now();
    while find(cluster, token).await.token.is_none() {
        assert!(started.elapsed() < PATIENCE, "the token of the settings is never made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_settings_lets_the_first_administrator_in_and_no_second_one() {
    let mut cluster = TestCluster::new(3);
    let (first, second, made) = (token(1), token(2), token(3));
    cluster.admin_token = Some(first.clone());
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(3).await;
    until_valid(&cluster, &first).await;
    let known = find(&cluster, &first).await.token.unwrap();
    assert!(known.hash.is_of(&first) && known.description.grants == [Grant::admin()]);

    cluster.call(create(&made)).await.unwrap();
    cluster.call(TouchToken { id: made.id().clone() }).await.unwrap();
    cluster.call(RevokeToken { id: first.id().clone() }).await.unwrap();
    // Nodes that start anew, with another token in their settings, one of which is to lead.
    cluster.admin_token = Some(second.clone());
    for node in 0..3 {
        cluster.stop_node(node).await;
        cluster.start_node(node);
        cluster.wait_for_voters(3).await;
    }
    cluster.call(TouchToken { id: made.id().clone() }).await.unwrap();
    let page = cluster.call(ListTokens { after: None, limit: 10 }).await.unwrap();
    let ids: Vec<_> = page.tokens.iter().map(|token| &token.id).collect();
    assert_eq!(ids, [made.id()], "somebody administers the cluster already");
    assert!(page.tokens[0].last_used.is_some());
    let last = cluster.call(RevokeToken { id: made.id().clone() }).await.unwrap_err();
    assert_eq!(last.code, ErrorCode::Conflict);
}
