use serde_json::json;

use super::*;

#[test]
fn a_terminal_never_gets_control_characters_from_the_server() {
    let row = json!({"name": "a\u{1b}[31mred\u{7}"});
    assert_eq!(table_cell(&row, "name", &Names::new()), "a?[31mred?");
    assert_eq!(details(&row, &Names::new()), "name  a?[31mred?\n");
}

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let mut listing = Listing::new(Format::Table, &["name", "product_line"]);
    let mut text = String::new();
    listing.table_rows(
        &[json!({"name": "thermo-0001"}), json!({"name": "x", "product_line": "line_1"})],
        &Names::new(),
        &mut text,
    );
    assert_eq!(text, "NAME         PRODUCT LINE\nthermo-0001  -\nx            line_1\n");
}

#[test]
fn moments_are_written_in_utc() {
    assert_eq!(plain("created", &json!(1_700_000_000_123_u64)), "2023-11-14T22:13:20Z");
    assert_eq!(plain("rows", &json!(1_700_000_000_123_u64)), "1700000000123");
    assert_eq!(plain("planned", &json!(20)), "20", "a count under a name that is a moment's elsewhere");
}

#[test]
fn an_object_in_an_object_is_indented_below_its_field() {
    let outcome = json!({"done": true, "batch": {"name": "b-1", "devices": 20}});
    assert_eq!(details(&outcome, &Names::new()), "batch:\n  name     b-1\n  devices  20\ndone   true\n");
}

#[test]
fn identifiers_get_their_names_in_tables_only() {
    let names = Names::from([("fac_1".to_owned(), "lyon".to_owned())]);
    let row = json!({"facility": "fac_1"});
    assert_eq!(table_cell(&row, "facility", &names), "lyon");
    assert_eq!(plain_cell(&row, "facility"), "fac_1");
    assert_eq!(details(&row, &names), "facility  lyon (fac_1)\n");
}

#[test]
fn a_length_of_time_is_a_period_to_people_and_seconds_to_scripts() {
    let row = json!({"soak_seconds": 5_400, "wait_seconds": null});
    assert_eq!(details(&row, &Names::new()), "soak          1h 30m\nwait_seconds  -\n");
    assert_eq!(
        (title("soak_seconds").as_str(), table_cell(&row, "soak_seconds", &Names::new()).as_str()),
        ("SOAK", "1h 30m")
    );
    assert_eq!(plain_cell(&row, "soak_seconds"), "5400");
}

#[test]
fn objects_below_a_field_are_a_table_with_sentences_last() {
    let because = "the salt is wiped, without which nobody derives them";
    let plan = json!({"fates": [{"because": because, "fate": "dies", "count": 12}, {"because": "-", "fate": "lives"}]});
    let expected = "fates:\n  COUNT  FATE   BECAUSE\n  12     dies   the salt is wiped, without which nobody derives them\n  -      lives  -\n";
    assert_eq!(details(&plan, &Names::new()), expected);
}

#[test]
fn sentences_that_do_not_fit_beside_their_field_are_one_a_line() {
    let plan = json!({"exceptions": ["one that is short", "one that is so long that both of them do not fit beside it, not at all"]});
    let expected = "exceptions:\n  - one that is short\n  - one that is so long that both of them do not fit beside it, not at all\n";
    assert_eq!(details(&plan, &Names::new()), expected);
    assert_eq!(details(&json!({"devices": ["dev_1", "dev_2"]}), &Names::new()), "devices  dev_1 dev_2\n");
}

#[test]
fn a_small_object_of_one_kind_stands_beside_its_field() {
    let status = json!({"filter": {"facility": "lyon"}, "unheard": {"day": 1, "week": 0}});
    assert_eq!(details(&status, &Names::new()), "filter   facility=lyon\nunheard  day=1 week=0\n");
}
