use super::*;

pub(crate) const C3: &str = r#"
format = 1
sku = "pump-c3-r4"
product_line = "pump"
target = "esp32"
chip = "esp32-c3"

[identity]
algorithm = "p-256"
origin = "station"
protection = "nvs-hmac"

[device_key]
inject = true

[layout]
nvs = { offset = 0x9000, size = 0x6000 }
secure_cert = { offset = 0x10000, size = 0x2000 }

[[fuse]]
block = 4
purpose = "hmac-up"

[chip_state]
jtag_disabled = true

[label]
server = "https://fleet.example"
"#;

const LINUX: &str = r#"
format = 1
sku = "gate"
product_line = "gateway"
target = "linux"
[identity]
algorithm = "p-256"
origin = "station"
protection = "sealed"
"#;

fn refusal(text: &str) -> String {
    Recipe::parse(text).unwrap_err().to_string()
}

#[test]
fn a_recipe_becomes_a_plan_that_says_what_cannot_be_undone() {
    let recipe = Recipe::parse(C3).unwrap();
    let plan = recipe.plan();
    let burnt: Vec<&Step> = plan.steps.iter().filter(|step| !step.is_reversible).collect();
    assert_eq!(burnt.len(), 1);
    assert!(burnt[0].text.contains("BLOCK_KEY4") && burnt[0].text.contains("HMAC_UP"));
    assert!(plan.to_text().contains("[CANNOT BE UNDONE]"));
    assert!(plan.burn_phrase().starts_with("BURN ") && plan.burn_phrase().len() == 17);
}

#[test]
fn the_hash_is_of_what_is_done_and_not_of_how_it_is_written() {
    let hash = |text: &str| Recipe::parse(text).unwrap().plan().hash;
    let spaced = C3.replace("sku = ", "# the pump\nsku    = ");
    assert_eq!(hash(C3), hash(&spaced));
    let changes = [
        ("block = 4", "block = 5"),
        ("0x9000", "0xa000"),
        ("size = 0x6000", "size = 0x5000"),
        ("inject = true", "inject = false"),
        ("jtag_disabled = true", "secure_boot = true"),
        ("fleet.example", "fleet.invalid"),
        ("pump-c3-r4", "pump-c3-r5"),
        ("product_line = \"pump\"", "product_line = \"valve\""),
        ("\"esp32-c3\"", "\"esp32-s3\""),
    ];
    for (from, to) in changes {
        assert_ne!(hash(C3), hash(&C3.replace(from, to)), "{from} -> {to}");
    }
}

#[test]
fn unknown_fields_are_refused_wherever_they_stand() {
    for place in ["sku = ", "algorithm = ", "inject = ", "nvs = { ", "block = ", "jtag_disabled = ", "server = "] {
        let text = C3.replacen(place, &format!("colour = 1\n{place}"), 1);
        let text = if place == "nvs = { " { C3.replacen("nvs = { ", "nvs = { colour = 1, ", 1) } else { text };
        assert!(refusal(&text).contains("colour"), "{place}");
    }
}

#[test]
fn what_does_not_fit_the_chip_is_refused_by_field() {
    let cases = [
        ("\"esp32-c3\"", "\"esp32\"", "identity.protection"),
        ("\"esp32-c3\"", "\"esp8266\"", "chip"),
        ("block = 4", "block = 6", "fuse.block"),
        ("0x9000", "0x9001", "layout.nvs"),
        ("size = 0x6000", "size = 0x2000", "layout.nvs"),
        ("offset = 0x10000", "offset = 0xa000", "layout"),
        ("nvs-hmac", "nvs-keys", "layout.nvs_keys"),
        ("nvs-hmac", "sealed", "identity.protection"),
        ("nvs-hmac", "hardware", "identity.origin"),
        ("nvs-hmac", "plain", "identity.protection"),
        ("hmac-up", "xts-aes128-key", "fuse.purpose"),
        ("https://", "http://", "label.server"),
        ("format = 1", "format = 2", "format"),
        ("\"pump-c3-r4\"", "\"pump c3\"", "sku"),
        ("p-256", "p-384", "identity.algorithm"),
        ("format = 1", "format = 1\nfirmware_sha256 = \"abc\"", "firmware_sha256"),
    ];
    for (from, to, field) in cases {
        let refusal = refusal(&C3.replacen(from, to, 1));
        assert!(refusal.starts_with(&format!("`{field}`")), "{from} -> {to}: {refusal}");
    }
}

#[test]
fn a_key_in_clear_needs_the_explicit_flag_and_the_plan_warns() {
    let plain = LINUX.replace("\"sealed\"", "\"plain\"");
    assert!(refusal(&plain).contains("unsafe_plain_private_key"));
    let flagged = format!("{plain}unsafe_plain_private_key = true\n");
    let plan = Recipe::parse(&flagged).unwrap().plan();
    assert!(plan.warnings.iter().any(|warning| warning.starts_with("UNSAFE")));
    assert!(refusal(&format!("{LINUX}unsafe_plain_private_key = true\n")).contains("unsafe_plain_private_key"));
}

#[test]
fn nvs_keys_without_flash_encryption_protects_nothing_and_is_refused() {
    let text = C3
        .replace("nvs-hmac", "nvs-keys")
        .replace("[[fuse]]\nblock = 4\npurpose = \"hmac-up\"\n", "")
        .replace("secure_cert = ", "nvs_keys = { offset = 0xf000, size = 0x1000 }\nsecure_cert = ");
    assert!(refusal(&text).contains("chip_state.flash_encryption"));
    let on = text.replace("jtag_disabled = true", "flash_encryption = true");
    assert!(Recipe::parse(&on).is_ok(), "{:?}", Recipe::parse(&on));
}

#[test]
fn other_targets_take_no_fuses_and_no_layout() {
    assert!(Recipe::parse(LINUX).is_ok());
    assert!(refusal(&format!("{LINUX}[[fuse]]\nblock = 0\npurpose = \"hmac-up\"\n")).starts_with("`fuse`"));
    let layout = format!("{LINUX}[layout]\nnvs = {{ offset = 0x9000, size = 0x6000 }}\n");
    assert!(refusal(&layout).starts_with("`layout`"));
    assert!(refusal(&LINUX.replace("target = \"linux\"", "target = \"tpm\"")).starts_with("`identity.protection`"));
    let held = LINUX.replace("\"station\"", "\"device\"").replace("\"sealed\"", "\"hardware\"");
    let tpm = held.replace("target = \"linux\"", "target = \"tpm\"");
    assert!(Recipe::parse(&tpm).is_ok(), "{:?}", Recipe::parse(&tpm));
    assert!(refusal(&format!("{tpm}[device_key]\ninject = true\n")).starts_with("`device_key.inject`"));
    assert!(refusal(&format!("{tpm}[secure_element]\nlock_certificate = true\n")).starts_with("`secure_element`"));
    let element = tpm.replace("\"tpm\"", "\"secure-element\"");
    assert!(Recipe::parse(&element).is_ok_and(|recipe| recipe.demanded().element_locked));
    assert!(refusal(&element.replace("p-256", "p-384")).starts_with("`identity.algorithm`"));
    assert!(refusal(&format!("{element}slot = 2\n")).starts_with("`identity.slot`"));
    assert!(refusal(&"x".repeat(MAX_RECIPE_OCTETS + 1)).contains("65536"));
}

#[test]
fn what_is_burnt_comes_in_a_fixed_order_with_the_port_last_and_secure_boot_with_its_guards() {
    let digest = "ab".repeat(32);
    let fuses = format!(
        "[[fuse]]\nblock = 1\npurpose = \"secure-boot-digest1\"\ndigest = \"{digest}\"\n\
         [[fuse]]\nblock = 0\npurpose = \"xts-aes128-key\"\n\
         [lock]\ndownload_mode = \"off\"\njtag = true\nsecure_boot = true\nflash_encryption = true\n[chip_state]"
    );
    let text = C3.replace("[chip_state]", &fuses);
    let recipe = Recipe::parse(&text).unwrap();
    let steps = recipe.plan().steps;
    let burnt: Vec<&str> = steps.iter().filter(|step| !step.is_reversible).map(|step| step.text.as_str()).collect();
    let expected = [
        "HMAC_UP",
        "XTS_AES_128_KEY",
        "SPI_BOOT_CRYPT_CNT = 7",
        "SECURE_BOOT_DIGEST1",
        "SECURE_BOOT_KEY_REVOKE0",
        "SECURE_BOOT_KEY_REVOKE2",
        "SECURE_BOOT_EN",
        "RD_DIS",
        "DIS_PAD_JTAG",
        "DIS_DOWNLOAD_MODE",
    ];
    assert_eq!(burnt.len(), expected.len(), "{burnt:?}");
    for (step, expected) in burnt.iter().zip(expected) {
        assert!(step.contains(expected), "{step} is not {expected}");
    }
    assert!(burnt[3].contains(&digest), "{}", burnt[3]);
    let place = |text: &str| steps.iter().position(|step| step.text.contains(text)).unwrap();
    assert!(place("compare") < place("HMAC_UP") && place("challenge") < place("DIS_DOWNLOAD_MODE"));
    let demanded = recipe.demanded();
    assert!(demanded.flash_encryption && demanded.secure_boot && demanded.download_mode_locked);
    assert!(!recipe.demanded_with_open_port().download_mode_locked);
}

#[test]
fn fuses_that_cannot_work_are_refused_before_there_is_a_chip() {
    let with = |more: &str| refusal(&C3.replace("[chip_state]", &format!("{more}\n[chip_state]")));
    let digest = |purpose: &str, digest: &str| {
        with(&format!("[[fuse]]\nblock = 0\npurpose = \"{purpose}\"\ndigest = \"{digest}\""))
    };
    assert!(with("[lock]\nsecure_boot = true").starts_with("`lock`"));
    assert!(with("[lock]\nflash_encryption = true").starts_with("`lock`"));
    assert!(with("[lock]\ndownload_mode = \"maybe\"").contains("download_mode"));
    assert!(digest("secure-boot-digest0", "abc").starts_with("`fuse.digest`"));
    assert!(digest("xts-aes128-key", &"ab".repeat(32)).starts_with("`fuse.digest`"));
    assert!(with("[[fuse]]\nblock = 0\npurpose = \"secure-boot-digest0\"").starts_with("`fuse.digest`"));
    let last = with("[[fuse]]\nblock = 5\npurpose = \"xts-aes128-key\"");
    assert!(last.starts_with("`fuse`") && last.contains("BLOCK_KEY5"), "{last}");
    let twice = "[[fuse]]\nblock = 0\npurpose = \"xts-aes128-key\"\n[[fuse]]\nblock = 1\npurpose = \"xts-aes128-key\"";
    assert!(with(twice).starts_with("`fuse`"));
    let linux = refusal(&format!("{LINUX}[lock]\njtag = true\n"));
    assert!(linux.starts_with("`fuse`"), "{linux}");
}

#[test]
fn a_file_system_is_for_linux_devices_and_of_a_size_that_it_can_have() {
    let with = |size: u32| format!("{LINUX}[file_system]\nsize = {size}\n");
    let recipe = Recipe::parse(&with(2_097_152)).unwrap();
    assert!(recipe.plan().to_text().contains("ext4 file system of 2097152 octets"));
    for size in [0, 4_096, 2_097_153, 33_554_432] {
        assert!(refusal(&with(size)).starts_with("`file_system.size`"), "{size}");
    }
    assert!(refusal(&format!("{C3}[file_system]\nsize = 2097152\n")).starts_with("`file_system`"));
}
