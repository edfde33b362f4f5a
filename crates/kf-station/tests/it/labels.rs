//! Labels, read back by a decoder that we did not write.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use kf_enrol::claim::parse_claim;
use kf_enrol::code::EnrolmentCode;
use kf_key::SecretArray;
use kf_station::fixture::{Board, Simulator, Supply};
use kf_station::label::{Label, LabelDirectory, LabelSink, sheet_pdf};

use crate::stage::{Disk, LINUX, Stage};

fn label(number: u8) -> Label {
    let code = EnrolmentCode::from_random(&SecretArray::fill(|octets| octets.fill(number)));
    Label::new("gate-r1", &format!("gate-{number:06}"), "https://fleet.example:8443", &code, &[0xab; 32], &[0xcd; 32])
}

fn run(program: &str, package: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install the Debian package {package}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every QR code that zbar finds in a picture.
fn read(picture: &Path) -> Vec<String> {
    let text =
        run("zbarimg", "zbar-tools", &["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", picture.to_str().unwrap()]);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn zbar_reads_the_claim_from_png_svg_and_pdf() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let expected = label(7).claim().expose().to_owned();
    std::fs::write(path("label.png"), label(7).to_png().unwrap()).unwrap();
    assert_eq!(read(&path("label.png")), std::slice::from_ref(&expected));

    std::fs::write(path("label.svg"), label(7).to_svg().unwrap()).unwrap();
    let (svg, drawn) = (path("label.svg"), path("drawn.png"));
    run(
        "rsvg-convert",
        "librsvg2-bin",
        &["-d", "300", "-p", "300", "-o", drawn.to_str().unwrap(), svg.to_str().unwrap()],
    );
    assert_eq!(read(&drawn), std::slice::from_ref(&expected));

    let labels: Vec<Label> = (0..30).map(label).collect();
    std::fs::write(path("sheet.pdf"), sheet_pdf(&labels).unwrap()).unwrap();
    let (pdf, page) = (path("sheet.pdf"), path("page"));
    run("pdftoppm", "poppler-utils", &["-r", "200", "-gray", "-png", pdf.to_str().unwrap(), page.to_str().unwrap()]);
    let mut found: Vec<String> = ["page-1.png", "page-2.png"].iter().flat_map(|name| read(&path(name))).collect();
    found.sort();
    let mut all: Vec<String> = labels.iter().map(|label| label.claim().expose().to_owned()).collect();
    all.sort();
    assert_eq!(found, all);
}

#[test]
fn a_claim_names_server_device_code_root_and_key() {
    let label = label(9);
    let claim = parse_claim(label.claim().expose()).unwrap();
    assert_eq!((claim.server.as_str(), claim.device.as_str()), ("https://fleet.example:8443", "gate-000009"));
    assert_eq!((claim.root_sha256, claim.key_sha256), ([0xab; 32], Some([0xcd; 32])));
    let text = String::from_utf8(claim.code.expose().to_vec()).unwrap();
    assert!(EnrolmentCode::parse(text.as_bytes()).is_ok());
}

#[test]
fn zpl_holds_the_same_claim_in_a_form_that_printers_do_not_misread() {
    let zpl = label(3).to_zpl();
    assert!(zpl.starts_with("^XA") && zpl.trim_end().ends_with("^XZ"));
    let field = zpl.split("^FH^FDMA,").nth(1).unwrap().split("^FS").next().unwrap();
    let mut decoded = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('_') {
        decoded.push_str(before);
        decoded.push(char::from(u8::from_str_radix(&after[..2], 16).unwrap()));
        rest = &after[2..];
    }
    decoded.push_str(rest);
    assert_eq!(decoded, label(3).claim().expose());
}

#[test]
fn a_label_lies_in_the_spool_until_its_device_passes() {
    let directory = tempfile::tempdir().unwrap();
    let labels = LabelDirectory::open(directory.path()).unwrap();
    labels.spool(&label(1)).unwrap();
    labels.spool(&label(2)).unwrap();
    assert!(labels.ready().unwrap().is_empty());
    labels.release("gate-000002").unwrap();
    labels.release("gate-000002").unwrap();
    let ready = labels.ready().unwrap();
    assert_eq!(ready.iter().map(Label::name).collect::<Vec<_>>(), ["gate-000002"]);
    assert_eq!(ready[0].claim().expose(), label(2).claim().expose());
}

/// Labels whose names are kept when they are released; with a jam nothing is.
#[derive(Debug, Default)]
struct Printer {
    is_jammed: bool,
    released: Mutex<Vec<String>>,
}

impl LabelSink for Printer {
    fn spool(&self, _label: &Label) -> io::Result<()> {
        Ok(())
    }

    fn release(&self, name: &str) -> io::Result<()> {
        if self.is_jammed {
            return Err(io::Error::other("jam"));
        }
        self.released.lock().unwrap().push(name.to_owned());
        Ok(())
    }
}

#[test]
fn a_label_that_power_kept_from_its_device_is_released_at_the_next_start() {
    let recipe = format!("{LINUX}\n[label]\nserver = \"https://fleet.example\"\n");
    let stage = Stage::new(&recipe, 3);
    let station = stage.open_with_labels(Disk::default(), Arc::new(Printer { is_jammed: true, ..Printer::default() }));
    let supply = Supply::new((0..2).map(|number| Board::new(number, None)));
    station.run(vec![Box::new(Simulator::new(supply, Arc::clone(&stage.target)))], &());
    let disk = station.into_file();
    let printer = Arc::new(Printer::default());
    let station = stage.open_with_labels(disk, Arc::clone(&printer) as Arc<dyn LabelSink>);
    assert_eq!(*printer.released.lock().unwrap(), ["gate-000001", "gate-000002"]);
    drop(station);
}
