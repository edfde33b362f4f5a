//! Every route of the API, without a credential and from the wrong facility. A route that is not judged here fails the
//! test, so that no route can be added without somebody deciding who may use it.

use kf_api::operator::Role;
use kf_server::ROUTES;

use crate::rig::Rig;

/// What an operator of `factory-b` gets when everything they ask about is in `factory-a`.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The thing does not exist for them, or they may not do this at all.
    Refused,
    /// They are nobody to this route.
    Unknown,
    /// An answer that mentions nothing of `factory-a`.
    Silent,
    /// Something that all facilities share.
    Shared,
    /// Not what this address reads, whoever sends it.
    Unread,
}
use Expected::{Refused, Shared, Silent, Unknown, Unread};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_no_route_answers_but_the_public_ones() {
    let rig = Rig::start().await;
    for (method, path, access) in ROUTES {
        let (method, url) = (method.to_uppercase(), rig.https_url(&path.replace(['{', '}', '*'], "")));
        for credential in [None, Some("Authorization: Bearer kft_wrong"), Some("Authorization: Basic b2xnYTp4")] {
            let mut arguments = vec!["-X", method.as_str()];
            arguments.extend(credential.into_iter().flat_map(|credential| ["-H", credential]));
            arguments.push(&url);
            let answer = rig.curl(&arguments);
            match *access {
                "operator" | "device" => assert_eq!(answer.status, 401, "{method} {path}: {}", answer.head),
                "public" => assert_eq!(answer.status, 200, "{method} {path}: {}", answer.head),
                // Heard without a credential, and only as a message that authenticates itself.
                "message" => assert_eq!(answer.status, 400, "{method} {path}: {}", answer.head),
                other => panic!("{method} {path} has an unknown access {other}"),
            }
        }
        let plain = rig.curl(&["-X", &method, &rig.http_url(&path.replace(['{', '}', '*'], ""))]);
        assert_eq!(plain.status, 403, "{method} {path} over plain HTTP: {}", plain.head);
    }
}

/// A report of a drill.
const DRILL: &str = r#"{"fleet":"x","at":0,"subjects":[],"devices":0,"hit":0,"sample":0,"timings":[],"steps":[],"checks":[],"passed":true,"not_shown":[]}"#;

/// Concrete requests about things of `factory-a`, one per route.
fn judged(serial: &str, code: &str, csr: &str) -> Vec<(&'static str, &'static str, String, Option<String>, Expected)> {
    let none = "00000000000000000000000000000000";
    let row = |method, route, path: &str, body: Option<&str>, expected| {
        (method, route, path.to_owned(), body.map(str::to_owned), expected)
    };
    let code_path = format!("/v1/codes/{code}");
    let issue = serde_json::json!({"profile": "ldevid", "csr_pem": csr, "device": "pump-1"}).to_string();
    let revoke = serde_json::json!(
        {"target": {"kind": "certificate", "of": serial}, "reason": "keyCompromise"}
    )
    .to_string();
    let block = serde_json::json!({"spki_sha256": ["00".repeat(32)], "why": "x"}).to_string();
    let certificate = format!("/v1/certificates/{serial}");
    let enrolment = format!("/v1/enrolments/enr_{none}/decision");
    let proposal = format!("/v1/proposals/prop_{none}");
    let token = format!("/v1/tokens/tok_{none}");
    let order = format!("/v1/orders/ord_{none}");
    let incident = format!("/v1/incidents/inc_{none}");
    let opening = serde_json::json!({"subjects": [{"kind": "facility", "of": "factory-a"}]}).to_string();
    let batch = serde_json::json!({
        "name": "b", "product_line": "pumps", "facility": "factory-a", "count": 1,
        "station_request": "AAAA", "recipe_sha256": "00".repeat(32),
    })
    .to_string();
    vec![
        row("get", "/v1/whoami", "/v1/whoami", None, Silent),
        row("get", "/v1/status", "/v1/status", None, Shared),
        row("put", "/v1/issuance", "/v1/issuance", Some(r#"{"run":false,"why":"x"}"#), Refused),
        row("get", "/v1/facilities", "/v1/facilities", None, Silent),
        row("post", "/v1/facilities", "/v1/facilities", Some(r#"{"name":"mine"}"#), Refused),
        row("get", "/v1/facilities/{facility}", "/v1/facilities/factory-a", None, Refused),
        row("get", "/v1/product-lines", "/v1/product-lines", None, Shared),
        row("post", "/v1/product-lines", "/v1/product-lines", Some(r#"{"name":"mine"}"#), Refused),
        row("get", "/v1/product-lines/{line}", "/v1/product-lines/pumps", None, Shared),
        row("put", "/v1/product-lines/{line}/policy", "/v1/product-lines/pumps/policy", Some("{}"), Refused),
        row("get", "/v1/devices", "/v1/devices?name_prefix=pump", None, Silent),
        row(
            "post",
            "/v1/devices",
            "/v1/devices",
            Some(r#"{"name":"pump-9","facility":"factory-a","product_line":"pumps"}"#),
            Refused,
        ),
        row(
            "post",
            "/v1/devices/import",
            "/v1/devices/import?format=json",
            Some(r#"[{"name":"pump-9","facility":"factory-a","product_line":"pumps"}]"#),
            Silent,
        ),
        row("post", "/v1/devices/release", "/v1/devices/release", Some(r#"{"device":"pump-1"}"#), Refused),
        row(
            "post",
            "/v1/devices/claim",
            "/v1/devices/claim",
            Some(r#"{"device":"pump-1","code":"x","facility":"factory-b"}"#),
            Refused,
        ),
        row("get", "/v1/devices/{device}", "/v1/devices/pump-1", None, Refused),
        row("post", "/v1/devices/{device}/act", "/v1/devices/pump-1/act", Some(r#"{"act":"suspend"}"#), Refused),
        row(
            "post",
            "/v1/devices/{device}/move",
            "/v1/devices/pump-1/move",
            Some(r#"{"facility":"factory-b"}"#),
            Refused,
        ),
        row("get", "/v1/devices/{device}/keys", "/v1/devices/pump-1/keys", None, Refused),
        row("post", "/v1/devices/{device}/keys", "/v1/devices/pump-1/keys", Some("{}"), Refused),
        row("get", "/v1/facilities/{facility}/epochs", "/v1/facilities/factory-a/epochs", None, Refused),
        row("post", "/v1/facilities/{facility}/epochs", "/v1/facilities/factory-a/epochs", Some("{}"), Refused),
        row(
            "get",
            "/v1/facilities/{facility}/epochs/{epoch}/holders",
            "/v1/facilities/factory-a/epochs/1/holders",
            None,
            Refused,
        ),
        row(
            "post",
            "/v1/facilities/{facility}/epochs/{epoch}/retire",
            "/v1/facilities/factory-a/epochs/1/retire",
            Some("{}"),
            Refused,
        ),
        row("post", "/v1/device/exchange", "/v1/device/exchange", Some("{}"), Unread),
        row("post", "/v1/device/session", "/v1/device/session", Some("{}"), Unread),
        row("get", "/v1/device/orders", "/v1/device/orders", None, Unknown),
        row("post", "/v1/device/orders/outcome", "/v1/device/orders/outcome", Some("{}"), Unread),
        row("post", "/v1/device/storage", "/v1/device/storage", Some("{}"), Unread),
        row("get", "/v1/batches", "/v1/batches", None, Silent),
        row("post", "/v1/batches", "/v1/batches", Some(&batch), Refused),
        row("get", "/v1/batches/{batch}", "/v1/batches/none", None, Refused),
        row("get", "/v1/batches/{batch}/quota", "/v1/batches/none/quota", None, Refused),
        row("post", "/v1/batches/{batch}/records", "/v1/batches/none/records", Some("{}"), Unread),
        row("get", "/v1/batches/{batch}/reconciliation", "/v1/batches/none/reconciliation", None, Refused),
        row("post", "/v1/batches/{batch}/cancel", "/v1/batches/none/cancel", Some("{}"), Refused),
        row("get", "/v1/station/pins", "/v1/station/pins", None, Shared),
        row("get", "/v1/vendors", "/v1/vendors", None, Shared),
        row("post", "/v1/vendors", "/v1/vendors", Some(r#"{"name":"mine","anchor_pem":""}"#), Refused),
        row("get", "/v1/vendors/{vendor}", "/v1/vendors/none", None, Refused),
        row("post", "/v1/vendors/{vendor}/withdraw", "/v1/vendors/none/withdraw", Some("{}"), Refused),
        row("get", "/v1/vendors/{vendor}/devices", "/v1/vendors/none/devices", None, Refused),
        row(
            "post",
            "/v1/vendors/{vendor}/devices",
            "/v1/vendors/none/devices",
            Some(r#"{"facility":"factory-a","product_line":"pumps","rows":[]}"#),
            Refused,
        ),
        row("get", "/v1/orders", "/v1/orders", None, Silent),
        row("post", "/v1/orders", "/v1/orders", Some(r#"{"device":"pump-1","act":"wipe","why":"x"}"#), Refused),
        row("get", "/v1/orders/{id}", &order, None, Refused),
        row("post", "/v1/orders/{id}/cancel", &format!("{order}/cancel"), Some("{}"), Refused),
        row("get", "/v1/campaigns", "/v1/campaigns", None, Silent),
        row(
            "post",
            "/v1/campaigns",
            "/v1/campaigns",
            Some(r#"{"name":"mine","kind":"device-key","filter":{"facility":"factory-a"}}"#),
            Refused,
        ),
        row("get", "/v1/campaigns/{campaign}", "/v1/campaigns/none", None, Refused),
        row("get", "/v1/campaigns/{campaign}/devices", "/v1/campaigns/none/devices", None, Refused),
        row("post", "/v1/campaigns/{campaign}/act", "/v1/campaigns/none/act", Some(r#"{"act":"start"}"#), Refused),
        row("get", "/v1/campaigns/{campaign}/estimate", "/v1/campaigns/none/estimate", None, Refused),
        row("put", "/v1/campaigns/{campaign}/plan", "/v1/campaigns/none/plan", Some(r#"{"plan":{"wave":5}}"#), Refused),
        row("post", "/v1/rotation", "/v1/rotation", Some(r#"{"facility":"factory-a"}"#), Refused),
        row("get", "/v1/inventory", "/v1/inventory", None, Silent),
        row("get", "/v1/destructions", "/v1/destructions", None, Silent),
        row(
            "post",
            "/v1/destructions",
            "/v1/destructions",
            Some(r#"{"target":{"class":"device-key","device":"pump-1"},"why":"x"}"#),
            Refused,
        ),
        row("get", "/v1/destructions/{id}", "/v1/destructions/dst_00000000000000000000000000000000", None, Refused),
        row("get", "/v1/ownership", "/v1/ownership", None, Silent),
        row(
            "post",
            "/v1/ownership",
            "/v1/ownership",
            Some(r#"{"end":"stolen","devices":[{"device":"pump-1"}],"why":"x"}"#),
            Refused,
        ),
        row("get", "/v1/ownership/{device}/receipt", "/v1/ownership/pump-1/receipt", None, Refused),
        row("get", "/v1/backup-keys", "/v1/backup-keys", None, Refused),
        row("post", "/v1/backup-keys", "/v1/backup-keys", Some(r#"{"recipient":"x","sealed_to":[]}"#), Refused),
        row("get", "/v1/backups", "/v1/backups", None, Refused),
        row("post", "/v1/backups", "/v1/backups", Some("{}"), Refused),
        row("get", "/v1/backups/{id}", "/v1/backups/bkp_00000000000000000000000000000000", None, Refused),
        row(
            "post",
            "/v1/backups/{id}/retire",
            "/v1/backups/bkp_00000000000000000000000000000000/retire",
            Some(r#"{"why":"x"}"#),
            Refused,
        ),
        row("get", "/v1/restored", "/v1/restored", None, Refused),
        row("post", "/v1/restored/accept", "/v1/restored/accept", Some("{}"), Refused),
        row("get", "/v1/escrows", "/v1/escrows", None, Refused),
        row(
            "post",
            "/v1/escrows",
            "/v1/escrows",
            Some(
                r#"{"v":1,"ceremony":"00","name":"x","class":"root","threshold":2,"custodians":[],"made":0,
                "rehearse_days":1,"reviewed_sha256":"00"}"#,
            ),
            Refused,
        ),
        row("post", "/v1/escrows/{ceremony}/release", "/v1/escrows/00/release", Some(r#"{"why":"x"}"#), Refused),
        row(
            "post",
            "/v1/escrows/{ceremony}/uses",
            "/v1/escrows/00/uses",
            Some(r#"{"index":1,"purpose":"release"}"#),
            Refused,
        ),
        row("post", "/v1/escrows/{ceremony}/rehearsals", "/v1/escrows/00/rehearsals", Some("{}"), Refused),
        row("get", "/v1/device/pins", "/v1/device/pins", None, Shared),
        row("get", "/v1/device/successions", "/v1/device/successions", None, Shared),
        row("get", "/v1/pinned-keys/{key}/devices", "/v1/pinned-keys/none/devices", None, Refused),
        row("get", "/v1/authorities", "/v1/authorities", None, Shared),
        row("post", "/v1/authorities", "/v1/authorities", Some(r#"{"name":"mine"}"#), Refused),
        row("get", "/v1/authorities/{authority}", "/v1/authorities/none", None, Refused),
        row("get", "/v1/authorities/{authority}/succession", "/v1/authorities/root/succession", None, Refused),
        row("post", "/v1/authorities/{authority}/succession", "/v1/authorities/root/succession", Some("{}"), Refused),
        row(
            "post",
            "/v1/authorities/{authority}/succession/act",
            "/v1/authorities/root/succession/act",
            Some(r#"{"act":"switch"}"#),
            Refused,
        ),
        row(
            "get",
            "/v1/authorities/{authority}/succession/unproved",
            "/v1/authorities/root/succession/unproved",
            None,
            Refused,
        ),
        row("get", "/v1/certificates", "/v1/certificates", None, Silent),
        row("post", "/v1/certificates", "/v1/certificates", Some(&issue), Refused),
        row("get", "/v1/certificates/{serial}", &certificate, None, Refused),
        row("post", "/v1/revocations", "/v1/revocations", Some(&revoke), Refused),
        row("post", "/v1/blocked-keys", "/v1/blocked-keys", Some(&block), Refused),
        row("post", "/v1/codes", "/v1/codes", Some(r#"{"device":"pump-1"}"#), Refused),
        row("get", "/v1/codes", "/v1/codes?device=pump-1", None, Refused),
        row("delete", "/v1/codes/{id}", &code_path, None, Refused),
        // An operator's token is no credential of a device.
        row("post", "/v1/device/endorsement", "/v1/device/endorsement", Some("{}"), Unknown),
        row(
            "post",
            "/v1/device/endorsement/{id}",
            &format!("/v1/device/endorsement/{none}"),
            Some(r#"{"answer":""}"#),
            Unknown,
        ),
        row("get", "/v1/enrolments", "/v1/enrolments", None, Silent),
        row("post", "/v1/enrolments/{id}/decision", &enrolment, Some(r#"{"approve":true}"#), Refused),
        row("get", "/v1/operators", "/v1/operators", None, Refused),
        row("post", "/v1/operators", "/v1/operators", Some(r#"{"name":"eve","role":"owner"}"#), Refused),
        row(
            "post",
            "/v1/operators/{operator}/enable",
            "/v1/operators/olga/enable",
            Some(r#"{"enabled":false}"#),
            Refused,
        ),
        row("post", "/v1/tokens", "/v1/tokens", Some(r#"{"operator":"olga"}"#), Refused),
        row("get", "/v1/tokens", "/v1/tokens?operator=olga", None, Refused),
        row("delete", "/v1/tokens/{id}", &token, None, Refused),
        row("get", "/v1/proposals", "/v1/proposals", None, Silent),
        row("get", "/v1/proposals/{id}", &proposal, None, Refused),
        row(
            "post",
            "/v1/proposals/{id}/decision",
            &format!("{proposal}/decision"),
            Some(r#"{"approve":true}"#),
            Refused,
        ),
        row("get", "/v1/access", "/v1/access?who=olga&action=device.read", None, Refused),
        row("get", "/v1/drills", "/v1/drills", None, Refused),
        row("post", "/v1/drills", "/v1/drills", Some(DRILL), Refused),
        row("get", "/v1/break-glass", "/v1/break-glass", None, Silent),
        row(
            "post",
            "/v1/break-glass",
            "/v1/break-glass",
            Some(r#"{"name":"x","role":"fleet-operator","recipient":"age1","why":"x"}"#),
            Refused,
        ),
        row("post", "/v1/break-glass/open", "/v1/break-glass/open", Some(r#"{"secret":"x","why":"x"}"#), Refused),
        row("get", "/v1/break-glass/{name}", "/v1/break-glass/x", None, Refused),
        row("get", "/v1/break-glass/{name}/sealed", "/v1/break-glass/x/sealed", None, Refused),
        row("post", "/v1/break-glass/{name}/end", "/v1/break-glass/x/end", Some("{}"), Refused),
        row("post", "/v1/break-glass/{name}/review", "/v1/break-glass/x/review", Some(r#"{"why":"x"}"#), Refused),
        row("post", "/v1/break-glass/{name}/withdraw", "/v1/break-glass/x/withdraw", Some("{}"), Refused),
        row("get", "/v1/incidents", "/v1/incidents", None, Silent),
        row("post", "/v1/incidents", "/v1/incidents", Some(&opening), Refused),
        row("get", "/v1/incidents/{id}", &incident, None, Refused),
        row("post", "/v1/incidents/{id}/plan", &format!("{incident}/plan"), Some("{}"), Refused),
        row(
            "post",
            "/v1/incidents/{id}/approve",
            &format!("{incident}/approve"),
            Some(r#"{"plan_sha256":"00"}"#),
            Refused,
        ),
        row("post", "/v1/incidents/{id}/run", &format!("{incident}/run"), Some("{}"), Refused),
        row("get", "/v1/incidents/{id}/report", &format!("{incident}/report"), None, Refused),
        row(
            "post",
            "/v1/incidents/{id}/close",
            &format!("{incident}/close"),
            Some(r#"{"verdict":"recovered"}"#),
            Refused,
        ),
        row("post", "/v1/open", "/v1/open", Some(r#"{"payloads":[{"envelope":"AAAA"}]}"#), Silent),
        row(
            "post",
            "/v1/seal",
            "/v1/seal",
            Some(r#"{"device":"pump-1","service":"x","plaintext":"AAAA","algorithm":"aes-128-ccm"}"#),
            Refused,
        ),
        row("get", "/v1/encryption-keys", "/v1/encryption-keys", None, Silent),
        row(
            "post",
            "/v1/encryption-keys",
            "/v1/encryption-keys",
            Some(r#"{"name":"mine","facility":"factory-a"}"#),
            Refused,
        ),
        row("get", "/v1/encryption-keys/{key}", "/v1/encryption-keys/vault", None, Refused),
        row("post", "/v1/encryption-keys/{key}/rotate", "/v1/encryption-keys/vault/rotate", Some("{}"), Refused),
        row(
            "put",
            "/v1/encryption-keys/{key}/minimum-version",
            "/v1/encryption-keys/vault/minimum-version",
            Some(r#"{"version":1}"#),
            Refused,
        ),
        row(
            "post",
            "/v1/encryption-keys/{key}/encrypt",
            "/v1/encryption-keys/vault/encrypt",
            Some(r#"{"items":[{"plaintext":"AAAA"}]}"#),
            Refused,
        ),
        row(
            "post",
            "/v1/encryption-keys/{key}/decrypt",
            "/v1/encryption-keys/vault/decrypt",
            Some(r#"{"items":[{"ciphertext":"kfc1.AAAA"}]}"#),
            Refused,
        ),
        row(
            "post",
            "/v1/encryption-keys/{key}/rewrap",
            "/v1/encryption-keys/vault/rewrap",
            Some(r#"{"items":[{"ciphertext":"kfc1.AAAA"}]}"#),
            Refused,
        ),
        row(
            "post",
            "/v1/encryption-keys/{key}/data-keys",
            "/v1/encryption-keys/vault/data-keys",
            Some(r#"{"count":1}"#),
            Refused,
        ),
        row("get", "/v1/encryption-keys/{key}/objects", "/v1/encryption-keys/vault/objects", None, Refused),
        row("get", "/v1/encryption-keys/{key}/objects/{name}", "/v1/encryption-keys/vault/objects/a", None, Refused),
        row(
            "put",
            "/v1/encryption-keys/{key}/objects/{name}",
            "/v1/encryption-keys/vault/objects/a",
            Some(r#"{"plaintext":"AAAA"}"#),
            Refused,
        ),
        row("delete", "/v1/encryption-keys/{key}/objects/{name}", "/v1/encryption-keys/vault/objects/a", None, Refused),
        row(
            "get",
            "/v1/encryption-keys/{key}/objects/{name}/content",
            "/v1/encryption-keys/vault/objects/a/content",
            None,
            Refused,
        ),
        row("get", "/v1/audit", "/v1/audit", None, Silent),
        row("get", "/v1/events", "/v1/events?wait_seconds=0&after=0", None, Silent),
        row("get", "/v1/audit/log/{*path}", "/v1/audit/log/checkpoint", None, Refused),
        row("get", "/v1/audit/verifier-key", "/v1/audit/verifier-key", None, Shared),
        row("get", "/metrics", "/metrics", None, Shared),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_one_facility_can_neither_see_nor_touch_another() {
    let rig = Rig::start().await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    let serial = rig.serial(&certificate);
    rig.code("pump-1").await;
    let code = rig.fleet.code_list(&rig.owner, "pump-1").await.unwrap()[0].id.to_string();
    let csr = crate::rig::openssl(&["req", "-inform", "DER", "-in", request.der.to_str().unwrap()]).stdout_text();
    let bob = rig.operator("bob", Role::FacilityOperator, &["factory-b"]).await;
    let factory_a = rig.fleet.facility_show(&rig.owner, "factory-a").await.unwrap().id.to_string();
    let vault = kf_api::encryption_key::NewEncryptionKey { name: "vault".into(), facility: "factory-a".into() };
    rig.fleet.encryption_key_create(&rig.owner, vault).await.unwrap();
    let rows = judged(&serial.to_string(), &code, &csr);

    let known: Vec<_> = rows.iter().map(|(method, route, ..)| (*method, *route)).collect();
    let routes: Vec<_> = ROUTES.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(known, routes, "every route is judged, in the order of the table");

    for (method, route, path, body, expected) in rows {
        let answer = rig.api(&bob, &method.to_uppercase(), &path, body.as_deref());
        let text = answer.text();
        match expected {
            Unknown => assert_eq!(answer.status, 401, "{method} {route}: {text}"),
            Refused => assert!(matches!(answer.status, 403 | 404), "{method} {route}: {}{text}", answer.head),
            Unread => assert_eq!(answer.status, 415, "{method} {route}: {text}"),
            Silent | Shared => assert_eq!(answer.status, 200, "{method} {route}: {text}"),
        }
        if !matches!(expected, Shared) {
            for secret in ["factory-a", &factory_a, &serial.to_string()] {
                // What the caller sent may come back in an error about it.
                let echoed = path.contains(secret) || body.as_deref().is_some_and(|body| body.contains(secret));
                assert!(echoed || !text.contains(secret), "{method} {route} tells of {secret}: {text}");
            }
        }
    }
    // Nothing happened to the device.
    let shown = rig.show(serial).await;
    assert_eq!(shown.certificate.status, kf_key::CertificateStatus::Good);
    let device = rig.fleet.device_show(&rig.owner, "pump-1").await.unwrap().device;
    assert_eq!(device.facility.to_string(), factory_a);
}
