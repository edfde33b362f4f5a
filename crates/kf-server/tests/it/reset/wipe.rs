//! The agent's wipe, killed at every durable step: the order was not begun, or the wipe is gone on with to its end.

use std::fs;

use kf_api::order::{OrderAct, OrderProgress, OrderRequest};
use kf_testkit::SoftHsm;
#[cfg(feature = "tpm")]
use kf_testkit::SoftwareTpm;

use super::hardware::{in_token, objects, with_token};
use super::{Made, Site, Starts, copy, fragments, is_child, told};

/// What no search counts: the receipt, and what has never been secret.
const NOT_COUNTED: [&str; 5] = ["wiped", "last-seen", "root.der", "anchors", "lock"];

const SEALED_TEST: &str = "reset::wipe::a_wipe_that_is_cut_at_any_durable_step_ends_as_a_whole";

/// Two people order the device wiped.
async fn order_wipe(site: &Site) {
    let request =
        OrderRequest { device: "pump-1".into(), act: OrderAct::Wipe, lifetime_hours: Some(24), why: "scrapped".into() };
    let outcome = site.rig.fleet.order_create(&site.rig.owner, request).await.unwrap();
    site.agree(outcome.proposal.unwrap()).await;
}

/// How many starts that were cut had not begun, and how many were in the middle.
#[derive(Debug, Default)]
struct Cuts {
    not_begun: u32,
    in_the_middle: u32,
}

/// A device in use, of which each cut gets a copy that has not seen the orders of before.
struct Cut<'a> {
    starts: Starts<'a>,
    site: &'a Site,
    config: String,
    /// Puts what holds keys beside the files back to what it was when the device was in use.
    put_back: &'a dyn Fn(),
    /// Whether it holds no key of the agent any more.
    is_clear: &'a dyn Fn() -> bool,
    /// It takes its time: whether a wiped device is moved by anything is asked once.
    is_slow: bool,
}

/// Nothing beside the files keeps anything.
const KEEPS_NOTHING: (&dyn Fn(), &dyn Fn() -> bool) = (&|| (), &|| true);

impl<'a> Cut<'a> {
    /// Brings a device into use: certificate, device key, a record. `key` is the table that says where its keys are.
    async fn in_use(site: &'a Site, starts: Starts<'a>, key: &str) -> Self {
        let made = starts.made;
        fs::write(made.file("code"), "").unwrap();
        let config = site.config(made, &made.state(), "").replace("[key]\nseal_fd = 0\n", &format!("[key]\n{key}\n"));
        let start = starts.does(&config, "due");
        assert!(start["is_valid"] == true && told(&start, "device-key"), "{start}");
        starts.does(&config, "put");
        let (put_back, is_clear) = KEEPS_NOTHING;
        Self { starts, site, config, put_back, is_clear, is_slow: false }
    }

    /// What lies beside the files, put back before each cut.
    fn beside(self, put_back: &'a dyn Fn(), is_clear: &'a dyn Fn() -> bool) -> Self {
        assert!(!is_clear(), "there are keys");
        Self { put_back, is_clear, ..self }
    }

    /// Kills the agent at one durable step after the other, until there is none left.
    async fn everywhere(&self) -> Cuts {
        let made = self.starts.made;
        let before = fragments(&made.state(), &NOT_COUNTED);
        assert!(before.len() > 300, "keys, vault and the maker's key are there");
        let mut cuts = Cuts::default();
        order_wipe(self.site).await;
        for when in 1..400 {
            let state = made.file("copy");
            drop(fs::remove_dir_all(&state));
            copy(&made.state(), &state);
            (self.put_back)();
            fs::write(made.file("code"), "a code of this owner").unwrap();
            let of_copy = self.config.replace(&made.state().display().to_string(), &state.display().to_string());
            let killed = self.starts.is_killed(&of_copy, when);
            if killed {
                self.goes_on(&of_copy, when, &mut cuts);
            }
            let order = self.site.newest_order().await;
            assert_eq!((order.act, order.progress), (OrderAct::Wipe, Some(OrderProgress::Executed)), "cut at {when}");
            let after = fragments(&state, &NOT_COUNTED);
            let found: Vec<_> = after.intersection(&before).collect();
            assert!(found.is_empty(), "cut at {when}: {} fragments are left", found.len());
            assert!(!made.file("code").exists(), "cut at {when}: the code is left");
            assert!((self.is_clear)(), "cut at {when}: a key is left in the hardware");
            if killed && self.is_slow {
                order_wipe(self.site).await;
                continue;
            }
            self.is_dead(&of_copy, when).await;
            if !killed {
                return cuts;
            }
        }
        panic!("there is no end of durable steps");
    }

    /// The next start after a cut.
    fn goes_on(&self, config: &str, when: u32, cuts: &mut Cuts) {
        let state = self.starts.made.file("copy");
        let has_begun = state.join("wiped").exists() || {
            // As before: what it kept opens. Or the step that counts was the last one, and opening goes on from it.
            let kept = self.starts.does(config, "read")["kept"] == true;
            let goes_on = state.join("wiped").exists();
            assert_eq!(kept, !goes_on, "cut at {when}");
            goes_on
        };
        *(if has_begun { &mut cuts.in_the_middle } else { &mut cuts.not_begun }) += 1;
        let (was_done, was_told) = (state.join("wiped-done").exists(), state.join("wiped-told").exists());
        let start = self.starts.does(config, "due");
        assert_eq!(start["is_valid"], false, "cut at {when}");
        // An order is taken from the server once: what has begun is gone on with, not begun again.
        assert_eq!(told(&start, "order"), !has_begun, "cut at {when}: {start}");
        assert_eq!(told(&start, "wiped"), !was_done, "cut at {when}: {start}");
        assert_eq!(told(&start, "order-answered"), !was_told, "cut at {when}: {start}");
    }

    /// Neither a code nor another order moves a device that was wiped. The order is that of the next copy.
    async fn is_dead(&self, config: &str, when: u32) {
        order_wipe(self.site).await;
        fs::write(self.starts.made.file("code"), "a fresh code").unwrap();
        let start = self.starts.does(config, "due");
        let events = start["events"].as_array().unwrap();
        assert!(start["is_valid"] == false && events.len() == 2, "cut at {when}: it starts, and it stops: {start}");
        assert_eq!(self.site.order().await, (OrderAct::Wipe, OrderProgress::Queued), "cut at {when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_that_is_cut_at_any_durable_step_ends_as_a_whole() {
    if is_child().await {
        return;
    }
    let made = Made::new();
    let site = Site::new(&made).await;
    let cuts = Cut::in_use(&site, Starts::of(SEALED_TEST, &made), "seal_fd = 0").await.everywhere().await;
    assert!(cuts.not_begun >= 3 && cuts.in_the_middle >= 10, "{cuts:?}: too few steps were hit");
}

#[cfg(feature = "tpm")]
const TPM_TEST: &str = "reset::wipe::a_wipe_with_keys_in_a_tpm_that_is_cut_at_any_durable_step_ends_as_a_whole";

#[cfg(feature = "tpm")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_with_keys_in_a_tpm_that_is_cut_at_any_durable_step_ends_as_a_whole() {
    if is_child().await {
        return;
    }
    let (made, tpm) = (Made::new(), SoftwareTpm::new());
    let site = Site::new(&made).await;
    let key = format!("kind = \"tpm\"\n[key.tpm]\naddress = \"{}\"\ndeadline_seconds = 60", tpm.address());
    let cuts = Cut::in_use(&site, Starts::of(TPM_TEST, &made), &key).await.everywhere().await;
    assert!(cuts.not_begun >= 3 && cuts.in_the_middle >= 10, "{cuts:?}: too few steps were hit");
}

const TOKEN_TEST: &str = "reset::wipe::a_wipe_with_keys_in_a_token_that_is_cut_at_any_durable_step_ends_as_a_whole";

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_with_keys_in_a_token_that_is_cut_at_any_durable_step_ends_as_a_whole() {
    if is_child().await {
        return;
    }
    let (made, token) = (Made::new(), SoftHsm::new());
    let site = Site::new(&made).await;
    let cut = Cut::in_use(&site, with_token(TOKEN_TEST, &made, &token), &in_token()).await;
    let (objects_of, kept) = (token.token_directory(), made.file("token"));
    copy(&objects_of, &kept);
    let put_back = || {
        fs::remove_dir_all(&objects_of).unwrap();
        copy(&kept, &objects_of);
    };
    let is_clear = || objects(&token).0 == 0;
    let cuts = cut.beside(&put_back, &is_clear).everywhere().await;
    // The token's own steps are among them: each object that it removes is one.
    assert!(cuts.not_begun >= 3 && cuts.in_the_middle >= 13, "{cuts:?}: too few steps were hit");
}

#[cfg(feature = "secure-element")]
const ELEMENT_TEST: &str =
    "reset::wipe::a_wipe_with_keys_in_an_element_that_is_cut_at_any_durable_step_ends_as_a_whole";

#[cfg(feature = "secure-element")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_with_keys_in_an_element_that_is_cut_at_any_durable_step_ends_as_a_whole() {
    if is_child().await {
        return;
    }
    let (made, chip) = (Made::new(), crate::personalized::personalized());
    let (site, served) = (Site::new(&made).await, chip.served());
    let key = format!("kind = \"secure-element\"\n[key.secure_element]\nbus = \"{}\"", served.bus().display());
    let starts = Starts { library: Some(kf_testkit::ServedElement::library()), ..Starts::of(ELEMENT_TEST, &made) };
    let cut = Cut { is_slow: true, ..Cut::in_use(&site, starts, &key).await };
    let held = chip.held();
    let put_back = || chip.put_back(&held);
    // The slots of labels.
    let is_clear = || [12, 13, 14].iter().all(|slot| !chip.slot(*slot).starts_with(b"K"));
    let cuts = cut.beside(&put_back, &is_clear).everywhere().await;
    // Each command that changes the chip is one of the steps.
    assert!(cuts.not_begun >= 3 && cuts.in_the_middle >= 12, "{cuts:?}: too few steps were hit");
}
