//! The servers of which we say that they will do, besides the one that all tests run on: what depends on a server's
//! own words and ways is tested on each of them, in this test program started again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::redis_server::PROGRAM;

/// The store's contract, failovers, and the faults that a server tells of. `tests/run.sh --long` runs all faults.
const TESTS: [&str; 18] = [
    "stores::redis_",
    "redis_store::",
    "redis_permissions::",
    "redis_sentinel::",
    "redis_cluster::",
    "redis_replicas::",
    "failover::a_planned_failover",
    "failover::a_killed_primary",
    "faults::a_replica_that_refuses_writes",
    "faults::a_wrong_password",
    "faults::busy_with_a_script",
    "faults::client_kill",
    "faults::flushed",
    "faults::killed_and_slow_to_load_its_data",
    "faults::killed_and_started_again",
    "faults::no_password_where_one_is_needed",
    "faults::out_of_memory",
    "faults::wrong_type",
];

#[test]
fn redis_6_2_keeps_the_contract_and_recovers_from_its_faults() {
    run_on("BOTTLE_SESSION_REDIS_6_2", "redis-6.2", "Redis server v=6.2.");
}

#[test]
fn valkey_9_keeps_the_contract_and_recovers_from_its_faults() {
    run_on("BOTTLE_SESSION_VALKEY_9", "valkey-9", "Valkey server v=9.");
}

/// Runs the tests on the server that the variable names, or else on the one that tests/run.sh installed.
fn run_on(variable: &str, installed: &str, version: &str) {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(installed);
    let program = std::env::var_os(variable).map_or(installed, PathBuf::from);
    let told = Command::new(&program).arg("--version").output().unwrap_or_else(|error| {
        let program = program.display();
        panic!(
            "{program}: {error}; run tests/run.sh, which installs it, or name another in {variable}"
        )
    });
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.starts_with(version), "{}: {told}", program.display());

    let output = Command::new(std::env::current_exe().unwrap())
        .args(TESTS)
        .env(PROGRAM, &program)
        .output()
        .unwrap();
    let (log, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "on {told}{log}\n{errors}");
    for test in TESTS {
        assert!(log.contains(&format!("test {test}")), "no test is {test}:\n{log}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
