//! Whom the client believes, and how it shows who it is.

use std::sync::Arc;

use kf_client::{Client, ClientError, Method};
use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_testkit::{Answer, ClientCheck, ForeignAuthority, HttpsServer, IssuedIdentity};

fn key(issued: &IssuedIdentity) -> Arc<PrivateKey> {
    Arc::new(PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(issued.pkcs8.clone())).unwrap())
}

async fn server(identity: &IssuedIdentity, check: ClientCheck) -> HttpsServer {
    HttpsServer::start(identity, check, |request| Answer::new(200, request.client_chain.len().to_string())).await
}

async fn get(client: &Client, server: &HttpsServer) -> Result<String, ClientError> {
    let answer = client.request(Method::GET, &server.url(), &[], "").await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn a_server_of_another_root_or_name_is_refused() {
    let (authority, stranger) = (ForeignAuthority::new(), ForeignAuthority::new());
    let good = server(&authority.issue_server(&["localhost"]), ClientCheck::Anybody).await;
    let other_name = server(&authority.issue_server(&["elsewhere"]), ClientCheck::Anybody).await;
    let client = Client::builder().roots(vec![authority.root_der()]).build().unwrap();
    assert_eq!(get(&client, &good).await.unwrap(), "0");
    assert!(matches!(get(&client, &other_name).await, Err(ClientError::Tls { .. })));
    let believer = Client::builder().roots(vec![stranger.root_der()]).build().unwrap();
    assert!(matches!(get(&believer, &good).await, Err(ClientError::Tls { .. })));
    assert!(Client::builder().roots(vec![b"junk".to_vec()]).build().is_err());
}

#[tokio::test]
async fn a_pinned_root_must_be_shown_and_must_be_the_root_of_the_path() {
    let (authority, stranger) = (ForeignAuthority::new(), ForeignAuthority::new());
    let mut identity = authority.issue_server(&["localhost"]);
    let without_root = server(&identity, ClientCheck::Anybody).await;
    identity.chain.push(authority.root_der());
    identity.chain.push(stranger.root_der());
    let with_roots = server(&identity, ClientCheck::Anybody).await;
    let pinning = |root: Vec<u8>| Client::builder().root_fingerprint(kf_crypto::sha256(&root)).build().unwrap();
    assert_eq!(get(&pinning(authority.root_der()), &with_roots).await.unwrap(), "0");
    assert!(matches!(get(&pinning(authority.root_der()), &without_root).await, Err(ClientError::Tls { .. })));
    // A root that is shown but did not sign the path, and a leaf that is no root.
    assert!(matches!(get(&pinning(stranger.root_der()), &with_roots).await, Err(ClientError::Tls { .. })));
    let leaf = identity.chain[0].clone();
    assert!(matches!(get(&pinning(leaf), &with_roots).await, Err(ClientError::Tls { .. })));
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_a_foreign_one_is_refused_with_the_alert() {
    let (authority, stranger) = (ForeignAuthority::new(), ForeignAuthority::new());
    let check = ClientCheck::Roots(vec![authority.root_der()]);
    let server = server(&authority.issue_server(&["localhost"]), check).await;
    let client_of = |issuer: &ForeignAuthority| {
        let issued = issuer.issue_client("meter");
        let builder = Client::builder().roots(vec![authority.root_der()]);
        builder.identity(issued.chain.clone(), key(&issued)).build().unwrap()
    };
    assert_eq!(get(&client_of(&authority), &server).await.unwrap(), "2");
    let refusal = get(&client_of(&stranger), &server).await.unwrap_err();
    assert!(matches!(refusal, ClientError::Refused(_) | ClientError::Exchange { .. }), "{refusal:?}");
}

#[tokio::test]
async fn a_certificate_and_another_key_are_not_paired() {
    let authority = ForeignAuthority::new();
    let (one, two) = (authority.issue_client("one"), authority.issue_client("two"));
    let builder = || Client::builder().roots(vec![authority.root_der()]);
    assert!(builder().identity(one.chain.clone(), key(&one)).build().is_ok());
    for chain in [one.chain.clone(), Vec::new(), vec![b"junk".to_vec()]] {
        let refusal = builder().identity(chain, key(&two)).build().unwrap_err();
        assert!(matches!(refusal, ClientError::Setting { setting: "identity", .. }), "{refusal}");
    }
    assert!(Client::builder().identity(one.chain.clone(), key(&one)).build().is_err());
}
