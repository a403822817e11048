//! Frontends over TLS: whom a client trusts, and what it says of the others.

use std::error::Error;
use std::sync::Arc;

use carnax::{BuildError, Client, ErrorCode, RequestError, SideEffects};
use carnax_test_certificates::{Authority, Issued};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::server::{Reply, Server, client_builder, in_time};

fn acceptor(issued: &Issued) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn server(issued: &Issued) -> Server {
    Server::start_as(Some(acceptor(issued)), |_| async { Reply::problem(ErrorCode::TopicNotFound, |_| ()) })
        .await
}

/// What becomes of a request: a server that is reached knows no topic.
async fn ask(client: &Client) -> RequestError {
    in_time(client.admin().describe_topic("t")).await.unwrap_err()
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_names_are_checked() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let good = server(&ca.issue(&["127.0.0.1"])).await;
    let client = client_builder([&good]).ca_certificates(other.pem() + &ca.pem()).build().unwrap();
    assert!(ask(&client).await.is(ErrorCode::TopicNotFound));
    assert_eq!(good.seen_count(), 1);

    let misnamed = server(&ca.issue(&["elsewhere.example"])).await;
    for (server, trusted, says) in
        [(&good, &other, "UnknownIssuer"), (&misnamed, &ca, "not valid for name \"127.0.0.1\"")]
    {
        let client = client_builder([server]).ca_certificates(trusted.pem()).build().unwrap();
        let refused = ask(&client).await;
        assert!(matches!(refused, RequestError::Untrusted { .. }), "{refused:?}");
        assert!(!refused.retryable() && refused.side_effects() == SideEffects::None);
        let told = chain(&refused);
        assert!(told.contains(says) && told.contains(&server.url), "{told}");
    }
    assert_eq!((good.seen_count(), misnamed.seen_count()), (1, 0));

    // One that is somebody else is passed over while another one is well.
    let client = client_builder([&misnamed, &good]).ca_certificates(ca.pem()).build().unwrap();
    assert!(ask(&client).await.is(ErrorCode::TopicNotFound));
}

#[tokio::test]
async fn without_a_private_authority_the_systems_are_trusted_and_rubbish_is_refused() {
    let stranger = server(&Authority::new("ca").issue(&["127.0.0.1"])).await;
    match client_builder([&stranger]).build() {
        Ok(client) => assert!(matches!(ask(&client).await, RequestError::Untrusted { .. })),
        // A system without any.
        Err(error) => assert!(matches!(error, BuildError::Certificates { .. }), "{error}"),
    }
    for rubbish in ["", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"] {
        let built = client_builder([&stranger]).ca_certificates(rubbish).build();
        assert!(matches!(built, Err(BuildError::Certificates { .. })), "{built:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_ended_may_be_renewed() {
    let ca = Authority::new("ca");
    let late = server(&ca.issue_expired(&["127.0.0.1"])).await;
    let timeout = std::time::Duration::from_millis(300);
    let client = client_builder([&late]).ca_certificates(ca.pem()).operation_timeout(timeout).build();
    let refused = ask(&client.unwrap()).await;
    assert!(refused.retryable(), "{refused:?}");
    assert!(chain(&refused).contains("expired"), "{}", chain(&refused));
}
