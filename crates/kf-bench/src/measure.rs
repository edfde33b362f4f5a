//! CPU time, alternating rounds, medians.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::error::BenchError;

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Rounds of each kind; odd, so that the median is one of them.
    pub(crate) rounds: usize,
    /// Operations of a round are scaled by this.
    pub(crate) scale: u32,
    /// Rows of the large store.
    pub(crate) large: u32,
    /// The `bao` program, when it is to be measured.
    pub(crate) openbao: Option<PathBuf>,
}

impl Effort {
    pub(crate) const fn full() -> Self {
        Self { rounds: 5, scale: 4, large: 1_000_000, openbao: None }
    }

    pub(crate) const fn quick() -> Self {
        Self { rounds: 3, scale: 1, large: 50_000, openbao: None }
    }
}

/// CPU time of this process, all threads.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of another process and its children, ended ones included.
pub(crate) fn cpu_time_of(process: u32) -> Result<Duration, BenchError> {
    let mut total = Duration::ZERO;
    let mut processes = vec![process];
    while let Some(process) = processes.pop() {
        total += cpu_time_of_one(process)?;
        let list = format!("/proc/{process}/task/{process}/children");
        let children = fs::read_to_string(&list).unwrap_or_default();
        processes.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(total)
}

fn cpu_time_of_one(process: u32) -> Result<Duration, BenchError> {
    // User and system time, of ended threads and ended children too, but in steps of 10 ms; the threads that are there
    // know theirs to the nanosecond.
    let coarse = ticks(format!("/proc/{process}/stat"), 11)?;
    let exact = threads_of(&process.to_string()).into_iter().map(|(_, time)| time).sum();
    Ok(coarse.max(exact) + ticks(format!("/proc/{process}/stat"), 13)?)
}

/// Name and CPU time of every thread of a process; one that ends meanwhile is left out.
fn threads_of(process: &str) -> Vec<(String, Duration)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let spent = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let nanoseconds = spent.split(' ').next()?.parse().ok()?;
            Some((name.trim().to_owned(), Duration::from_nanos(nanoseconds)))
        })
        .collect()
}

/// How long this thread was ready to run so far, and did not because no processor was free (proc(5), schedstat).
pub(crate) fn waited_for_processor() -> Result<Duration, BenchError> {
    const PATH: &str = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(PATH).map_err(BenchError::io(PATH))?;
    let waited = text.split(' ').nth(1).and_then(|field| field.parse().ok());
    let waited = waited.ok_or(BenchError::Failed { what: "a thread's waiting", why: format!("not in {PATH}") })?;
    Ok(Duration::from_nanos(waited))
}

/// CPU time so far of the threads of this process that have this name.
pub(crate) fn cpu_time_of_threads(name: &str) -> Duration {
    threads_of("self").into_iter().filter(|(found, _)| found == name).map(|(_, time)| time).sum()
}

/// The sum of two neighbouring fields of proc(5)'s stat, counted from the state.
fn ticks(path: String, first: usize) -> Result<Duration, BenchError> {
    let text = fs::read_to_string(&path).map_err(BenchError::io(path))?;
    // The name of the program may hold anything; fields are counted from its closing parenthesis.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(first).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}

/// CPU time of the children of this process that have ended and been waited for, in steps of 10 ms.
pub(crate) fn cpu_time_of_ended_children() -> Result<Duration, BenchError> {
    ticks("/proc/self/stat".to_owned(), 13)
}

/// Resident memory of a process in octets.
pub(crate) fn resident_octets(process: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).map_err(BenchError::io(path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1_024)
}

/// Forgets the most memory that this process ever had (proc(5), clear_refs): what counts from here on is counted alone.
pub(crate) fn forget_peak() -> Result<(), BenchError> {
    fs::write("/proc/self/clear_refs", "5").map_err(BenchError::io("/proc/self/clear_refs"))
}

/// The most memory that this process had, since it was last forgotten.
pub(crate) fn peak_octets() -> Result<u64, BenchError> {
    let status = fs::read_to_string("/proc/self/status").map_err(BenchError::io("/proc/self/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes << 10)
        .ok_or(BenchError::Failed { what: "memory", why: "no VmHWM in /proc/self/status".to_owned() })
}

/// What a round costs: measures the CPU time of this process around `round`, per operation, in seconds.
pub(crate) fn cpu_per_operation<E>(operations: u32, round: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let before = cpu_time();
    round()?;
    Ok((cpu_time() - before).as_secs_f64() / f64::from(operations))
}

/// One subject to be timed: returns seconds per operation of one round.
pub(crate) type Round<'a> = &'a mut dyn FnMut() -> Result<f64, BenchError>;

/// Times several subjects in alternating rounds, after one round of each that is not counted, and returns the median of
/// each. Alternating, because the speed of a shared machine drifts by a quarter within a minute.
pub(crate) fn alternate(rounds: usize, subjects: &mut [Round<'_>]) -> Result<Vec<f64>, BenchError> {
    let mut samples = vec![Vec::with_capacity(rounds); subjects.len()];
    for subject in subjects.iter_mut() {
        subject()?;
    }
    for _ in 0..rounds {
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            samples.push(subject()?);
        }
    }
    Ok(samples.into_iter().map(median).collect())
}

/// The middle one; the mean of the two middle ones where their number is even; 0 of nothing.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    let upper = samples.get(middle).copied().unwrap_or(0.0);
    if samples.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|index| samples.get(index)).copied().unwrap_or(0.0);
    f64::midpoint(lower, upper)
}

/// Seconds as microseconds.
pub(crate) fn micros(seconds: f64) -> f64 {
    seconds * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_a_slow_round() {
        assert!((median(vec![3.0, 1.0, 90.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(vec![1.0, 3.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_cpu_time_of_a_process_grows_with_its_work() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() - before < Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_time_of(std::process::id()).expect("own stat") >= Duration::from_millis(20));
        assert!(resident_octets(std::process::id()).expect("own status") > 1 << 20);
    }
}
