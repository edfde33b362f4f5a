//! `keyfleet device export`: every matching device, in the form that `import` reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use kf_api::Page;
use kf_api::device::{Device, DeviceFilter, NewDevice};

use crate::api::{Api, Context};
use crate::command::device::Filter;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, raw, say};

/// What to export.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    filter: Filter,
    /// Write here instead of to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, export: Export) -> Result<(), Failure> {
    file::must_be_free(export.out.as_deref())?;
    let mut api = context.api()?;
    let mut names = api.names("/v1/facilities").await;
    names.append(&mut api.names("/v1/product-lines").await);
    let spool = spool(&mut api, export.filter.into(), &names).await?;
    let rows = spool.rows;
    match &export.out {
        None => spool.write(context.format, &mut std::io::stdout().lock()).map_err(Failure::Output)?,
        Some(path) => {
            let refused = |error| Failure::file("write", path, error);
            file::write_new(path, b"")?;
            let out = File::options().write(true).open(path).map_err(refused)?;
            let mut out = BufWriter::new(out);
            spool.write(context.format, &mut out).map_err(refused)?;
            out.into_inner().map_err(|error| refused(error.into_error()))?.sync_all().map_err(refused)?;
        }
    }
    say(&match &export.out {
        Some(path) => format!("{rows} devices written to {}", path.display()),
        None => format!("{rows} devices"),
    });
    raw(b"")
}

/// All devices in an unnamed temporary file, one JSON object a line: CSV needs the names of all attributes before its
/// first line, and a fleet need not fit in memory.
struct Spool {
    file: File,
    keys: BTreeSet<String>,
    rows: u64,
}

async fn spool(api: &mut Api, mut filter: DeviceFilter, names: &Names) -> Result<Spool, Failure> {
    let refused = |error| Failure::file("write", Path::new("a temporary file"), error);
    let mut writer = BufWriter::new(tempfile::tempfile().map_err(refused)?);
    let mut keys = BTreeSet::new();
    let mut rows = 0;
    filter.limit = Some(kf_api::page::MAX_LIMIT);
    loop {
        let page: Page<Device> = api.query("/v1/devices", &filter).await?;
        for device in page.items {
            let row = exported(device, names);
            keys.extend(row.attributes.keys().cloned());
            serde_json::to_writer(&mut writer, &row).map_err(|error| refused(error.into()))?;
            writer.write_all(b"\n").map_err(refused)?;
            rows += 1;
        }
        match page.next {
            Some(next) if filter.after.as_ref() != Some(&next) => filter.after = Some(next),
            _ => break,
        }
    }
    let mut file = writer.into_inner().map_err(|error| refused(error.into_error()))?;
    file.rewind().map_err(refused)?;
    Ok(Spool { file, keys, rows })
}

/// A device as it would be registered, its facility and product line by name where the caller may see the names.
fn exported(device: Device, names: &Names) -> NewDevice {
    let name_of = |id: String| names.get(&id).cloned().unwrap_or(id);
    NewDevice {
        name: device.name,
        facility: name_of(device.facility.to_string()),
        product_line: name_of(device.product_line.to_string()),
        batch: device.batch,
        attributes: device.attributes,
    }
}

impl Spool {
    fn write(self, format: Format, out: &mut impl std::io::Write) -> std::io::Result<()> {
        match format {
            Format::Json => self.write_json(out),
            Format::Table | Format::Csv => self.write_csv(out),
        }
    }

    fn write_json(self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let mut before: &[u8] = b"[\n";
        for line in BufReader::new(self.file).lines() {
            out.write_all(before)?;
            out.write_all(line?.as_bytes())?;
            before = b",\n";
        }
        out.write_all(if self.rows == 0 { b"[]\n" } else { b"\n]\n" })?;
        out.flush()
    }

    fn write_csv(self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let mut writer = csv::Writer::from_writer(out);
        let attributes = self.keys.iter().map(|key| format!("attr.{key}"));
        let columns = ["name", "facility", "product_line", "batch"].into_iter().map(str::to_owned);
        writer.write_record(columns.chain(attributes))?;
        for line in BufReader::new(self.file).lines() {
            let row: NewDevice = serde_json::from_str(&line?)?;
            let facts = [row.name.as_str(), &row.facility, &row.product_line, row.batch.as_deref().unwrap_or("")];
            let attributes = self.keys.iter().map(|key| row.attributes.get(key).map_or("", String::as_str));
            writer.write_record(facts.into_iter().chain(attributes))?;
        }
        writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool_of(rows: &[NewDevice]) -> Spool {
        let mut file = tempfile::tempfile().unwrap();
        for row in rows {
            writeln!(file, "{}", serde_json::to_string(row).unwrap()).unwrap();
        }
        file.rewind().unwrap();
        let keys = rows.iter().flat_map(|row| row.attributes.keys().cloned()).collect();
        Spool { file, keys, rows: u64::try_from(rows.len()).unwrap() }
    }

    fn device(name: &str, attributes: &[(&str, &str)]) -> NewDevice {
        NewDevice {
            name: name.to_owned(),
            facility: "lyon".to_owned(),
            product_line: "thermo".to_owned(),
            batch: None,
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn an_exported_csv_has_a_column_for_every_attribute_of_any_device() {
        let rows = [device("a", &[("color", "red, dark")]), device("b", &[("room", "1")])];
        let mut out = Vec::new();
        spool_of(&rows).write(Format::Csv, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "name,facility,product_line,batch,attr.color,attr.room\na,lyon,thermo,,\"red, dark\",\nb,lyon,thermo,,,1\n"
        );
    }

    #[test]
    fn an_exported_json_is_what_import_reads() {
        let rows = [device("a", &[("k", "v")]), device("b", &[])];
        let mut out = Vec::new();
        spool_of(&rows).write(Format::Json, &mut out).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<NewDevice>>(&out).unwrap(), rows);
        let mut empty = Vec::new();
        spool_of(&[]).write(Format::Json, &mut empty).unwrap();
        assert_eq!(empty, b"[]\n");
    }
}
