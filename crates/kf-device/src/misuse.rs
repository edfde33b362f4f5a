//! What must not compile. Each example differs from the first, which does, by the one line that is wrong.
//!
//! ```
//! # use kf_device::entropy::*; use kf_device::storage::*; use kf_device::derivation::HeldKey; use kf_device::sealed;
//! fn seal<N: Noise, F: Flash>(source: &mut Source<N, Healthy>, store: &mut Store<F>, held: &HeldKey, service: kf_seal::Service) {
//!     let sealer = sealed::sealer(held, service, kf_seal::SealAlgorithm::Aes128Ccm, store, source);
//! }
//! ```
//! Nothing is sealed with randomness of a source that was not tested:
//! ```compile_fail,E0308
//! # use kf_device::entropy::*; use kf_device::storage::*; use kf_device::derivation::HeldKey; use kf_device::sealed;
//! fn seal<N: Noise, F: Flash>(source: &mut Source<N, Unchecked>, store: &mut Store<F>, held: &HeldKey, service: kf_seal::Service) {
//!     let sealer = sealed::sealer(held, service, kf_seal::SealAlgorithm::Aes128Ccm, store, source);
//! }
//! ```
//! No seed comes out of it either:
//! ```compile_fail,E0599
//! # use kf_device::entropy::*;
//! fn seed<N: Noise>(mut source: Source<N, Unchecked>) {
//!     let seed = source.seed();
//! }
//! ```
//! A seed cannot be made by hand, nor a nonce:
//! ```compile_fail,E0603
//! let nonce = kf_device::entropy::Nonce([0; 12]);
//! ```
//! ```compile_fail,E0451
//! # use kf_device::entropy::*;
//! fn forge(octets: kf_key::SecretArray<32>, evidence: kf_entropy::Evidence) -> Seed {
//!     Seed { octets, evidence, grade: core::marker::PhantomData }
//! }
//! ```
//! A seed makes one key, a nonce wraps one:
//! ```compile_fail,E0382
//! # use kf_device::entropy::*; use kf_device::identity::*; use kf_device::storage::*; use kf_device::wrap::WrapKey;
//! fn twice<F: Flash, W: WrapKey>(store: &mut Store<F>, wrap: &W, device: kf_key::DeviceId, seed: Seed, a: Nonce, b: Nonce) {
//!     let first = Candidate::<SoftwareIdentity>::generate(store, wrap, device, seed, a);
//!     let second = Candidate::<SoftwareIdentity>::generate(store, wrap, device, seed, b);
//! }
//! ```
//! ```compile_fail,E0599
//! fn twice(nonce: kf_device::entropy::Nonce) {
//!     let copy = nonce.clone();
//! }
//! ```
//! A sealer, a key, a ratchet and a noise source cannot be cloned:
//! ```compile_fail,E0599
//! fn clone(sealer: kf_seal::Sealer) {
//!     let copy = sealer.clone();
//! }
//! ```
//! ```compile_fail,E0599
//! fn clone(held: kf_device::derivation::HeldKey) {
//!     let copy = held.clone();
//! }
//! ```
//! ```compile_fail,E0599
//! fn clone(identity: kf_device::identity::SoftwareIdentity) {
//!     let copy = identity.clone();
//! }
//! ```
//! ```compile_fail,E0599
//! fn clone(ratchet: kf_device::session::StoredRatchet) {
//!     let copy = ratchet.clone();
//! }
//! ```
//! Keys do not print and cannot be compared:
//! ```compile_fail,E0277
//! fn print(held: kf_device::derivation::HeldKey) {
//!     println!("{held}");
//! }
//! ```
//! ```compile_fail,E0277
//! fn print(identity: kf_device::identity::SoftwareIdentity) {
//!     println!("{identity}");
//! }
//! ```
//! ```compile_fail,E0369
//! fn compare(a: kf_device::entropy::Seed, b: kf_device::entropy::Seed) -> bool {
//!     a == b
//! }
//! ```
//! A former position of the ratchet is spent by going forward:
//! ```compile_fail,E0382
//! # use kf_device::entropy::Nonce; use kf_device::session::StoredRatchet; use kf_device::storage::*; use kf_device::wrap::WrapKey;
//! fn back<F: Flash, W: WrapKey>(ratchet: StoredRatchet, store: &mut Store<F>, wrap: &W, nonce: Nonce) {
//!     let next = ratchet.advance_to(2, store, wrap, nonce);
//!     let session = ratchet.session(b"before");
//! }
//! ```
//! A key without a certificate cannot be put into use, and an order to wipe is carried out once:
//! ```compile_fail,E0599
//! # use kf_device::identity::*; use kf_device::storage::*;
//! fn adopt<F: Flash>(candidate: Candidate<SoftwareIdentity>, store: &mut Store<F>) {
//!     let in_use = candidate.adopt(store);
//! }
//! ```
//! ```compile_fail,E0382
//! # use kf_device::identity::*; use kf_device::order::WipeOrder; use kf_device::storage::*;
//! fn twice<F: Flash>(order: WipeOrder, identity: &SoftwareIdentity, store: &mut Store<F>) {
//!     let first = order.carry_out(kf_key::UnixMillis(0), identity, store);
//!     let second = order.carry_out(kf_key::UnixMillis(0), identity, store);
//! }
//! ```
