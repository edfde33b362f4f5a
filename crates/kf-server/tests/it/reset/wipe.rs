//! The agent's wipe, killed at every durable step: the order was not begun, or the wipe is gone on with to its end.

use std::fs;

use kf_api::order::{OrderAct, OrderProgress, OrderRequest};
use kf_key::SecretBytes;
#[cfg(feature = "tpm")]
use kf_testkit::SoftwareTpm;

use super::{Made, RECORD, Site, agent, copy, fragments, has, in_use, is_child, killed_child, once, quiet};

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
    test: &'static str,
    made: &'a Made,
    site: &'a Site,
    config: &'a str,
}

impl Cut<'_> {
    /// Kills the agent at one durable step after the other, until there is none left.
    async fn everywhere(&self) -> Cuts {
        let before = fragments(&self.made.state(), &NOT_COUNTED);
        assert!(before.len() > 300, "keys, vault and the maker's key are there");
        let mut cuts = Cuts::default();
        order_wipe(self.site).await;
        for when in 1..400 {
            let state = self.made.file("copy");
            drop(fs::remove_dir_all(&state));
            copy(&self.made.state(), &state);
            fs::write(self.made.file("code"), "a code of this owner").unwrap();
            let of_copy = self.config.replace(&self.made.state().display().to_string(), &state.display().to_string());
            let killed = killed_child(self.test, self.made, &of_copy, when);
            if killed {
                self.goes_on(&of_copy, when, &mut cuts).await;
            }
            let order = self.site.newest_order().await;
            assert_eq!((order.act, order.progress), (OrderAct::Wipe, Some(OrderProgress::Executed)), "cut at {when}");
            let after = fragments(&state, &NOT_COUNTED);
            let found: Vec<_> = after.intersection(&before).collect();
            assert!(found.is_empty(), "cut at {when}: {} fragments are left", found.len());
            assert!(!self.made.file("code").exists(), "cut at {when}: the code is left");
            self.is_dead(&of_copy, when).await;
            if !killed {
                return cuts;
            }
        }
        panic!("there is no end of durable steps");
    }

    /// The next start after a cut.
    async fn goes_on(&self, config: &str, when: u32, cuts: &mut Cuts) {
        let state = self.made.file("copy");
        let has_begun = state.join("wiped").exists() || {
            // As before: what it kept opens. Or the step that counts was the last one, and opening goes on from it.
            let opened = agent(config, &quiet());
            let kept = opened.read_record(7).ok().flatten();
            let goes_on = state.join("wiped").exists();
            assert_eq!(kept.is_some_and(|kept| kept.equals(RECORD)), !goes_on, "cut at {when}");
            goes_on
        };
        *(if has_begun { &mut cuts.in_the_middle } else { &mut cuts.not_begun }) += 1;
        let (was_done, was_told) = (state.join("wiped-done").exists(), state.join("wiped-told").exists());
        let (outcome, events) = once(config).await;
        assert!(!outcome.is_valid, "cut at {when}");
        // An order is taken from the server once: what has begun is gone on with, not begun again.
        assert_eq!(has(&events, "order"), !has_begun, "cut at {when}: {events:?}");
        assert_eq!(has(&events, "wiped"), !was_done, "cut at {when}: {events:?}");
        assert_eq!(has(&events, "order-answered"), !was_told, "cut at {when}: {events:?}");
    }

    /// Neither a code nor another order moves a device that was wiped. The order is that of the next copy.
    async fn is_dead(&self, config: &str, when: u32) {
        order_wipe(self.site).await;
        fs::write(self.made.file("code"), "a fresh code").unwrap();
        let (outcome, events) = once(config).await;
        assert!(!outcome.is_valid && events.len() == 2, "cut at {when}: it starts, and it stops: {events:?}");
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
    let config = in_use(&made, &site).await;
    let cut = Cut { test: SEALED_TEST, made: &made, site: &site, config: &config };
    let cuts = cut.everywhere().await;
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
    fs::write(made.file("code"), "").unwrap();
    let key = format!("kind = \"tpm\"\n[key.tpm]\naddress = \"{}\"\ndeadline_seconds = 60\n", tpm.address());
    let config = site.config(&made, &made.state(), "").replace("seal_fd = 0\n", &key);
    let (outcome, events) = once(&config).await;
    assert!(outcome.is_valid && has(&events, "device-key"), "{events:?}");
    agent(&config, &quiet()).put_record(7, &SecretBytes::from_vec(RECORD.to_vec())).unwrap();
    let cut = Cut { test: TPM_TEST, made: &made, site: &site, config: &config };
    let cuts = cut.everywhere().await;
    assert!(cuts.not_begun >= 3 && cuts.in_the_middle >= 10, "{cuts:?}: too few steps were hit");
}
