use kf_store::{Options, Store, StoreError};

use crate::fixture::{open, populate, small_reserve};

fn raw(directory: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.path().join("registry.db")).unwrap()
}

fn try_open(directory: &tempfile::TempDir) -> Result<Store, StoreError> {
    Store::open(&directory.path().join("registry.db"), small_reserve())
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&directory, small_reserve()));
    raw(&directory).pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(try_open(&directory).unwrap_err(), StoreError::NewerSchema { found: 99, known: 1 });
}

#[tokio::test]
async fn migrations_run_twice_change_nothing() {
    let schema = |directory: &tempfile::TempDir| -> Vec<String> {
        let connection = raw(directory);
        let mut statement = connection.prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, small_reserve());
    populate(&store).await;
    drop(store);
    let before = schema(&directory);
    drop(open(&directory, small_reserve()));
    assert_eq!(schema(&directory), before);
    assert!(before.len() > 30);
}

#[test]
fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    raw(&directory).execute("CREATE TABLE notes (text TEXT)", []).unwrap();
    assert!(matches!(try_open(&directory), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("registry.db"), vec![0x55; 8_192]).unwrap();
    assert!(matches!(try_open(&directory), Err(StoreError::Corrupt { .. })));
    let nowhere = Store::open(std::path::Path::new("/nonexistent/registry.db"), Options::default());
    assert!(matches!(nowhere, Err(StoreError::Io { .. })));
}
