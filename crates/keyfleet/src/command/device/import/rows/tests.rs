use tokio::sync::mpsc;

use super::*;

fn pieces_of(
    encoding: ImportFormat,
    from_row: u64,
    rows_per_piece: usize,
    text: &[u8],
) -> (Vec<Piece>, Result<(), String>) {
    let (sender, mut receiver) = mpsc::channel(1_000);
    let read = Source { encoding, from_row, rows_per_piece }.read(text, &sender);
    let mut pieces = Vec::new();
    while let Ok(piece) = receiver.try_recv() {
        pieces.push(piece);
    }
    (pieces, read)
}

fn bodies(pieces: &[Piece]) -> Vec<&str> {
    pieces.iter().map(|piece| std::str::from_utf8(&piece.body).unwrap()).collect()
}

#[test]
fn every_piece_of_a_csv_file_begins_with_its_header() {
    let (pieces, read) = pieces_of(ImportFormat::Csv, 1, 2, b"name,facility\r\na,f\r\n\"b\n\",f\r\nc,f");
    assert_eq!(read, Ok(()));
    assert_eq!(bodies(&pieces), ["name,facility\na,f\n\"b\n\",f\n", "name,facility\nc,f\n"]);
    assert_eq!((pieces[0].last_row, pieces[1].rows.as_slice()), (2, &[3][..]));
}

#[test]
fn every_piece_of_a_json_file_is_an_array() {
    let (pieces, read) = pieces_of(ImportFormat::Json, 1, 2, br#" [{"name":"a"}, {"name":"b"},{"name":"c"}] "#);
    assert_eq!(read, Ok(()));
    assert_eq!(bodies(&pieces), [r#"[{"name":"a"},{"name":"b"}]"#, r#"[{"name":"c"}]"#]);
    assert_eq!(pieces[1].rows, [3]);
}

#[test]
fn rows_before_the_starting_row_are_skipped_and_numbers_stay_those_of_the_file() {
    let (pieces, _) = pieces_of(ImportFormat::Csv, 3, 10, b"name\na\nb\nc\nd\n");
    assert_eq!((bodies(&pieces), pieces[0].rows.as_slice()), (vec!["name\nc\nd\n"], &[3, 4][..]));
    let (pieces, _) = pieces_of(ImportFormat::Json, 2, 10, b"[1,2]");
    assert_eq!((bodies(&pieces), pieces[0].rows.as_slice()), (vec!["[2]"], &[2][..]));
}

#[test]
fn a_row_that_is_not_utf_8_is_refused_by_number_and_the_others_are_sent() {
    let (pieces, read) = pieces_of(ImportFormat::Csv, 1, 10, b"name\na\n\xff\nc\n");
    assert_eq!(read, Ok(()));
    assert_eq!((bodies(&pieces), pieces[0].rows.as_slice()), (vec!["name\na\nc\n"], &[1, 3][..]));
    assert_eq!(pieces[0].refused.iter().map(|error| error.row).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_broken_json_file_is_reported_with_its_place_after_what_was_sound() {
    let (pieces, read) = pieces_of(ImportFormat::Json, 1, 1, br#"[{"name":"a"},{"name":]"#);
    assert_eq!(pieces.len(), 1);
    assert!(read.is_err_and(|problem| problem.contains("line 1")));
    assert!(pieces_of(ImportFormat::Json, 1, 1, b"{}").1.is_err_and(|problem| problem.contains("array of devices")));
    assert!(pieces_of(ImportFormat::Csv, 1, 1, b"").1.is_err_and(|problem| problem.contains("header")));
}

#[test]
fn a_row_without_end_is_refused() {
    let text = format!("name\n{}\n", "a".repeat(MAX_ROW_OCTETS + 1));
    let (pieces, _) = pieces_of(ImportFormat::Csv, 1, 10, text.as_bytes());
    assert_eq!((pieces[0].rows.len(), pieces[0].refused.len()), (0, 1));
}
