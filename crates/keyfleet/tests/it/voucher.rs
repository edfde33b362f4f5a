//! A station vouches for a key that it saw, and the device enrols over EST with a client that we did not write.

use std::fs;

use kf_testkit::{Output, Tool};

use crate::console::{Fleet, Succeeds as _, private};

fn openssl(fleet: &Fleet, arguments: &[&str]) {
    Tool::new("openssl").directory(fleet.scratch.path()).run(arguments).succeeds();
}

/// EST simpleenroll by curl; the password comes from a file, not from the command line.
fn enrol(fleet: &Fleet, request: &str, voucher: &str) -> Output {
    let profile = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let server = profile.lines().next().unwrap().trim_start_matches("server = ").trim_matches('"').to_owned();
    private(&fleet.path("curl.conf"), &format!("user = \"thermo-0001:{voucher}\"\n"));
    openssl(fleet, &["req", "-in", request, "-outform", "DER", "-out", "request.der"]);
    openssl(fleet, &["base64", "-in", "request.der", "-out", "request.b64"]);
    let root = fleet.data().join("root.pem");
    Tool::new("curl").directory(fleet.scratch.path()).run(&[
        "--silent",
        "--config",
        "curl.conf",
        "--cacert",
        root.to_str().unwrap(),
        "--header",
        "Content-Type: application/pkcs10",
        "--data-binary",
        "@request.b64",
        "--write-out",
        "\nstatus %{http_code}",
        &format!("{server}/.well-known/est/thermo/simpleenroll"),
    ])
}

#[test]
fn a_voucher_enrols_the_key_it_names_once_and_no_other() {
    let fleet = Fleet::start(&[]).with_device();
    openssl(&fleet, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "line.key"]);
    private(&fleet.path("station.key"), &fs::read_to_string(fleet.path("line.key")).unwrap());
    openssl(&fleet, &["pkey", "-in", "station.key", "-pubout", "-out", "station.pub"]);
    let station = fleet.json(&[
        "operator",
        "create",
        "line-1",
        "--role",
        "station",
        "--facility",
        "lyon",
        "--voucher-key",
        "station.pub",
    ]);
    let station = station["id"].as_str().unwrap();
    let (request, other) = (fleet.request("thermo"), fleet.request("other"));
    fleet
        .run(&[
            "voucher",
            "make",
            "thermo-0001",
            "--csr",
            &request,
            "--station",
            station,
            "--key",
            "station.key",
            "--out",
            "voucher",
        ])
        .succeeds();
    let voucher = fs::read_to_string(fleet.path("voucher")).unwrap();
    enrol(&fleet, &other, &voucher).expect_success().expect_text("status 401");
    enrol(&fleet, &request, &voucher).expect_success().expect_text("status 200");
    let device = fleet.json(&["device", "show", "thermo-0001"]);
    assert_eq!(device["device"]["state"], "active");

    fleet.run(&["operator", "disable", "line-1", "--why", "stolen"]).succeeds();
    let again = fleet.request("again");
    let arguments = ["voucher", "make", "thermo-0001", "--csr", &again, "--station", station, "--key", "station.key"];
    fleet.run(&[&arguments[..], &["--out", "stolen"]].concat()).succeeds();
    let stolen = fs::read_to_string(fleet.path("stolen")).unwrap();
    enrol(&fleet, &again, &stolen).expect_success().expect_text("status 401");
}
