//! The server's side of a device's life: EST by openssl, exchanges by the server's crate.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use kf_derive::{DeviceKey, FleetRoot, SoftwareKey};
use kf_exchange::{
    Acknowledgement, AwaitProof, ClaimedIdentity, Ephemeral, IdentityKey as _, KeyPlace, Kind, P256IdentityKey,
    PublicKey, peek,
};
use kf_key::{DeviceId, FacilityId, SecretArray};
use kf_testkit::Tool;

pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
pub(crate) const CODE: &[u8] = b"one-time-code";
const FACILITY: FacilityId = FacilityId::from_bytes([0xfa; 16]);
const SALT: [u8; 16] = [0x5a; 16];

fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|key| key.fill(octet))
}

/// What came with a request beside its body.
pub(crate) struct Said<'a> {
    /// One a line.
    pub(crate) headers: &'a str,
    /// Fingerprints of the roots that the device believes.
    pub(crate) believed: &'a [u8],
}

pub(crate) struct EstServer {
    folder: PathBuf,
    root: FleetRoot,
    pub(crate) delivery_key: P256IdentityKey,
    pub(crate) order_key: P256IdentityKey,
    pub(crate) device_epoch: u32,
    pub(crate) acknowledged_epoch: u32,
    /// Certificates issued, newest last.
    pub(crate) certified: Vec<Vec<u8>>,
    /// What is asked for beside an answer to a poll, one header a line.
    pub(crate) asks: String,
    /// Headers of the polls, and the fingerprints of the roots by which each of them came.
    pub(crate) polls: Vec<(String, Vec<u8>)>,
    /// Statements about the storage key.
    pub(crate) statements: Vec<Vec<u8>>,
    sessions: BTreeMap<[u8; 16], AwaitProof>,
    fresh: u8,
}

impl EstServer {
    pub(crate) fn new() -> Self {
        let folder = kf_testkit::scratch().keep();
        let server = Self {
            folder,
            root: FleetRoot::from_keyed_hmac(SoftwareKey::new(secret(1))),
            delivery_key: P256IdentityKey::from_secret(&secret(2)).unwrap(),
            order_key: P256IdentityKey::from_secret(&secret(3)).unwrap(),
            device_epoch: 1,
            acknowledged_epoch: 0,
            certified: Vec::new(),
            asks: String::new(),
            polls: Vec::new(),
            statements: Vec::new(),
            sessions: BTreeMap::new(),
            fresh: 0,
        };
        server.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -days 30 -subj /CN=root");
        server.openssl("x509 -in root.pem -outform DER -out root.der");
        server.openssl("crl2pkcs7 -nocrl -certfile root.pem -outform DER -out authorities.der");
        server
    }

    fn openssl(&self, arguments: &str) -> Vec<u8> {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        Tool::new("openssl").directory(&self.folder).run(&arguments).expect_success().stdout
    }

    /// SHA-256 of the root's certificate, by openssl.
    pub(crate) fn anchor(&self) -> Vec<u8> {
        self.openssl("dgst -sha256 -binary root.der")
    }

    /// The same of the second root, once it is offered.
    pub(crate) fn successor(&self) -> Vec<u8> {
        self.openssl("x509 -in next.pem -outform DER -out next.der");
        self.openssl("dgst -sha256 -binary next.der")
    }

    /// Makes a second root, offered beside the first: with the link by which the first vouches for it, or without.
    pub(crate) fn offer_successor(&self, is_vouched: bool) {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout next.key -out next.pem -days 30 -subj /CN=root-2");
        self.openssl("req -new -key next.key -subj /CN=root-2 -out next.csr");
        fs::write(self.folder.join("ca.ext"), "basicConstraints=critical,CA:TRUE\n").unwrap();
        self.openssl("x509 -req -in next.csr -CA root.pem -CAkey root.key -days 30 -extfile ca.ext -out link.pem");
        let link = if is_vouched { " -certfile link.pem" } else { "" };
        self.openssl(&format!(
            "crl2pkcs7 -nocrl -certfile root.pem -certfile next.pem{link} -outform DER -out authorities.der"
        ));
    }

    /// Issues from the second root, and hands out nothing else.
    pub(crate) fn retire_first(&self) {
        fs::rename(self.folder.join("next.pem"), self.folder.join("root.pem")).unwrap();
        fs::rename(self.folder.join("next.key"), self.folder.join("root.key")).unwrap();
        self.openssl("crl2pkcs7 -nocrl -certfile root.pem -outform DER -out authorities.der");
    }

    pub(crate) fn place(&self) -> KeyPlace {
        KeyPlace { facility: FACILITY, facility_epoch: 1, device_epoch: self.device_epoch }
    }

    pub(crate) fn device_key(&self, epoch: u32) -> DeviceKey {
        self.root.facility(FACILITY, 1).unwrap().device(DEVICE, &SALT, epoch).unwrap()
    }

    /// Whether a signature holds by the key of a certificate, by openssl.
    pub(crate) fn verifies(&self, certificate: &[u8], message: &[u8], signature: &[u8]) -> bool {
        fs::write(self.folder.join("client.der"), certificate).unwrap();
        fs::write(self.folder.join("message"), message).unwrap();
        let signature: [u8; 64] = signature.try_into().unwrap();
        fs::write(self.folder.join("signature"), der(&signature)).unwrap();
        fs::write(self.folder.join("client.key"), self.openssl("x509 -inform DER -in client.der -noout -pubkey"))
            .unwrap();
        let verify = ["dgst", "-sha256", "-verify", "client.key", "-signature", "signature", "message"];
        Tool::new("openssl").directory(&self.folder).run(&verify).success()
    }

    /// Status, headers for devices, body.
    pub(crate) fn answer(
        &mut self,
        path: &str,
        authorization: &[u8],
        client: Option<&[u8]>,
        said: &Said<'_>,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        if path == "/v1/device/orders" {
            assert!(client.is_some(), "orders are for whoever proves to be the device");
            self.polls.push((said.headers.to_owned(), said.believed.to_vec()));
            return (204, std::mem::take(&mut self.asks), Vec::new());
        }
        let (status, body) = self.answer_alone(path, authorization, client, body);
        (status, String::new(), body)
    }

    fn answer_alone(&mut self, path: &str, authorization: &[u8], client: Option<&[u8]>, body: &[u8]) -> (u16, Vec<u8>) {
        match path {
            "/.well-known/est/pumps/cacerts" => (200, self.openssl("base64 -in authorities.der")),
            "/.well-known/est/pumps/simpleenroll" => {
                let expected =
                    Tool::new("openssl").run_with_input(&["base64", "-A"], &[b"pump-7:", CODE].concat()).stdout_text();
                if authorization != format!("Basic {expected}").as_bytes() {
                    return (401, Vec::new());
                }
                (200, self.certify(body))
            }
            "/.well-known/est/pumps/simplereenroll" => match client {
                Some(client) if self.certified.last().is_some_and(|last| last == client) => (200, self.certify(body)),
                _ => (403, Vec::new()),
            },
            "/v1/device/exchange" => (200, self.exchange(body)),
            "/v1/device/storage" => {
                self.statements.push(body.to_vec());
                (204, Vec::new())
            }
            _ => (404, Vec::new()),
        }
    }

    /// openssl checks the request and signs the certificate.
    fn certify(&mut self, body: &[u8]) -> Vec<u8> {
        fs::write(self.folder.join("request.b64"), body).unwrap();
        self.openssl("base64 -d -A -in request.b64 -out request.der");
        let checked = ["req", "-inform", "DER", "-in", "request.der", "-verify", "-noout"];
        let checked = Tool::new("openssl").directory(&self.folder).run(&checked).expect_success();
        assert!(checked.text().contains("verify OK"), "{}", checked.text());
        self.openssl(
            "x509 -req -inform DER -in request.der -CA root.pem -CAkey root.key -days 30 -sha256 -out leaf.pem",
        );
        self.openssl("x509 -in leaf.pem -outform DER -out leaf.der");
        self.openssl("crl2pkcs7 -nocrl -certfile leaf.pem -outform DER -out leaf.p7");
        self.certified.push(fs::read(self.folder.join("leaf.der")).unwrap());
        self.openssl("base64 -in leaf.p7")
    }

    /// The newest identity key, as openssl reads it out of its certificate.
    pub(crate) fn identity(&self, newest: usize) -> PublicKey {
        let certificate = &self.certified[self.certified.len() - 1 - newest];
        fs::write(self.folder.join("identity.der"), certificate).unwrap();
        fs::write(self.folder.join("identity.key"), self.openssl("x509 -inform DER -in identity.der -noout -pubkey"))
            .unwrap();
        PublicKey::from_spki(&self.openssl("pkey -pubin -in identity.key -pubout -outform DER")).unwrap()
    }

    /// One message of an exchange, and the answer.
    fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        match peek(message).unwrap() {
            Kind::Hello => {
                self.fresh += 1;
                let session = [self.fresh; 16];
                let ephemeral = Ephemeral::from_random(secret(100 + self.fresh)).unwrap();
                let (state, challenge) =
                    AwaitProof::challenge(message, &self.delivery_key, session, ephemeral).unwrap();
                self.sessions.insert(session, state);
                challenge.as_bytes().to_vec()
            }
            Kind::Proof => {
                let claimed = ClaimedIdentity::read(message).unwrap();
                let state = self.sessions.remove(&claimed.session).unwrap();
                let proved = state.verify(message, DEVICE, &self.identity(0)).unwrap();
                let key = self.device_key(self.device_epoch).into_secret();
                proved.deliver(self.place(), &key).unwrap().as_bytes().to_vec()
            }
            Kind::Acknowledgement => {
                let said = Acknowledgement::read(message).unwrap();
                self.acknowledged_epoch = said.place().device_epoch;
                said.verify(&self.device_key(self.acknowledged_epoch)).unwrap().as_bytes().to_vec()
            }
            other => panic!("not for a server: {other:?}"),
        }
    }

    pub(crate) fn pins(&self) -> [Vec<u8>; 2] {
        [&self.delivery_key, &self.order_key].map(|key| key.public_key().to_spki().to_vec())
    }
}

impl Drop for EstServer {
    fn drop(&mut self) {
        let _gone_already = fs::remove_dir_all(&self.folder);
    }
}

/// Ecdsa-Sig-Value of r and s, as openssl takes it.
fn der(signature: &[u8; 64]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let digits: Vec<u8> = number.iter().copied().skip_while(|octet| *octet == 0).collect();
        let pad: &[u8] = if digits.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
        let body = [pad, &digits].concat();
        [vec![2, u8::try_from(body.len()).unwrap()], body].concat()
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
}
