use proptest::prelude::*;

use super::*;

fn read(format: ImportFormat, text: &str) -> Result<Vec<Result<NewDevice, BadRow>>, FleetError> {
    let mut rows = Rows::new(format, text.as_bytes())?;
    let mut all = Vec::new();
    while let Some(row) = rows.next_row()? {
        all.push(row);
    }
    Ok(all)
}

fn refusal(format: ImportFormat, text: &str) -> (String, String) {
    match read(format, text) {
        Err(FleetError::Invalid { field, problem, .. }) => (field, problem),
        other => panic!("{other:?}"),
    }
}

fn device(name: &str, batch: Option<&str>, attributes: &[(&str, &str)]) -> NewDevice {
    NewDevice {
        name: name.into(),
        facility: "north".into(),
        product_line: "pumps".into(),
        batch: batch.map(str::to_owned),
        attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

#[test]
fn csv_columns_may_come_in_any_order_with_quotes_byte_order_mark_and_crlf() {
    let text = "\u{feff}facility,attr.colour, batch ,name,product_line,attr.note\r\n\
                north,red,b1,p1,pumps,\"a, \"\"b\"\"\"\r\n\
                north,,,p2,pumps,\r\n";
    let rows = read(ImportFormat::Csv, text).unwrap();
    assert_eq!(
        rows,
        [Ok(device("p1", Some("b1"), &[("colour", "red"), ("note", "a, \"b\"")])), Ok(device("p2", None, &[])),]
    );
}

#[test]
fn a_csv_header_that_lacks_doubles_or_invents_a_column_is_refused() {
    let header = |text: &str| {
        let (field, problem) = refusal(ImportFormat::Csv, text);
        assert_eq!(field, "header");
        problem
    };
    assert!(header("").contains("lacks the column `name`"));
    assert!(header("name,facility\n").contains("lacks the column `product_line`"));
    assert!(header("name,facility,product_line,colour\n").contains("unknown column `colour`"));
    assert!(header("name,facility,product_line,attr.\n").contains("unknown column `attr.`"));
    assert!(header("name,facility,product_line,name\n").contains("twice"));
    assert!(header("name,facility,product_line,attr.a,attr.a\n").contains("twice"));
    assert!(header("Name,facility,product_line\n").contains("unknown column `Name`"));
}

#[test]
fn a_csv_row_with_too_few_or_too_many_fields_is_refused_alone() {
    let rows =
        read(ImportFormat::Csv, "name,facility,product_line\np1,north\np2,north,pumps\np3,north,pumps,x\n").unwrap();
    assert_eq!(rows[1], Ok(device("p2", None, &[])));
    for (row, count) in [(0, "2 fields"), (2, "4 fields")] {
        let bad = rows[row].clone().unwrap_err();
        assert_eq!(bad.field, "row");
        assert!(bad.problem.contains(count), "{bad:?}");
    }
}

#[test]
fn a_csv_field_that_is_not_utf8_is_refused_alone_and_named() {
    let mut rows =
        Rows::new(ImportFormat::Csv, b"name,facility,product_line\np\xff,north,pumps\np2,north,pumps\n").unwrap();
    let bad = rows.next_row().unwrap().unwrap().unwrap_err();
    assert_eq!((bad.field.as_str(), bad.problem.as_str()), ("name", "is not UTF-8"));
    assert_eq!(rows.next_row().unwrap().unwrap(), Ok(device("p2", None, &[])));
}

#[test]
fn a_json_array_is_read_element_by_element() {
    let text = "\n [ {\"name\":\"p1\",\"facility\":\"north\",\"product_line\":\"pumps\"} ,\n\
                {\"name\":\"p2\",\"facility\":\"north\",\"product_line\":\"pumps\",\"batch\":\"b1\",\"attributes\":{\"a\":\"],\"}}]\n ";
    let rows = read(ImportFormat::Json, text).unwrap();
    assert_eq!(rows, [Ok(device("p1", None, &[])), Ok(device("p2", Some("b1"), &[("a", "],")]))]);
    assert_eq!(read(ImportFormat::Json, "[]").unwrap(), []);
}

#[test]
fn a_json_element_that_is_no_device_is_refused_alone() {
    let good = r#"{"name":"p1","facility":"north","product_line":"pumps"}"#;
    let text = format!(
        r#"[1, {good}, {{"name":"p2"}}, {{"name":"p3","facility":"n","product_line":"p","colour":"red"}}, null]"#
    );
    let rows = read(ImportFormat::Json, &text).unwrap();
    assert_eq!(rows.iter().filter(|row| row.is_err()).count(), 4);
    assert_eq!(rows[1], Ok(device("p1", None, &[])));
    assert!(rows[2].clone().unwrap_err().problem.contains("facility"));
    assert!(rows[3].clone().unwrap_err().problem.contains("colour"));
}

#[test]
fn json_that_is_no_array_or_breaks_off_is_refused_with_its_line() {
    let check = |text: &str, part: &str| {
        let (field, problem) = refusal(ImportFormat::Json, text);
        assert_eq!(field, "body");
        assert!(problem.contains(part), "{text}: {problem}");
    };
    check("", "is not a JSON array");
    check("{}", "is not a JSON array");
    check("[", "not closed");
    check("[1,\n2\n", "line 3");
    check("[1 2]", "comma");
    check("[,1]", "comma");
    check("[1,]", "line 1");
    check("[1]\n2", "after the array");
    check("[\n\n{\"a\"", "line 3");
    check(&format!("[{}", "[".repeat(100_000)), "recursion limit");
}

#[test]
fn an_import_that_is_too_large_is_refused_before_it_is_read() {
    let text = " ".repeat(MAX_OCTETS + 1);
    for format in [ImportFormat::Csv, ImportFormat::Json] {
        assert_eq!(refusal(format, &text).0, "body");
    }
}

proptest! {
    #[test]
    fn counting_passes_over_as_many_rows_as_reading_reads(text in "[ \\[\\],\"a1{}:\n]{0,60}") {
        for format in [ImportFormat::Csv, ImportFormat::Json] {
            let text = if format == ImportFormat::Csv { format!("name,facility,product_line\n{text}") } else { format!("[{text}") };
            let counted = Rows::new(format, text.as_bytes()).unwrap().skip(1_000).ok();
            let read = read(format, &text).ok().map(|rows| u64::try_from(rows.len()).unwrap());
            prop_assert_eq!(counted, read);
        }
    }

    #[test]
    fn no_octets_make_the_reader_panic(text: Vec<u8>) {
        for format in [ImportFormat::Csv, ImportFormat::Json] {
            if let Ok(mut rows) = Rows::new(format, &text) {
                while let Ok(Some(_)) = rows.next_row() {}
            }
        }
    }
}
