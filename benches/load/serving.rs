//! Requests that arrive by a schedule, and callers that answer them.
//!
//! The schedule never waits for an answer, and a latency runs from the time that the schedule says: a request that
//! arrives while all callers are busy counts its wait, and the ones behind it theirs. (To send a request only when the
//! one before is answered would leave out just the waits that a slow answer causes.)

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where callers read the time since the start, and wait.
pub trait Clock: Sync {
    /// The time since the start.
    fn now(&self) -> Duration;

    /// Returns at `time` or later.
    fn wait_until(&self, time: Duration);
}

/// The clock of the machine.
pub struct Wall(Instant);

impl Wall {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

/// A sleeping thread may wake up late by about this much; the last of a wait is spent awake.
const OVERSLEEP: Duration = Duration::from_micros(100);

impl Clock for Wall {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&self, time: Duration) {
        let left = time.saturating_sub(self.now());
        std::thread::sleep(left.saturating_sub(OVERSLEEP));
        while self.now() < time {
            std::hint::spin_loop();
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Copy)]
pub struct Team {
    /// Threads that call the engine.
    pub callers: usize,
    /// Most requests of a call.
    pub batch: usize,
}

/// What happened to the requests of a schedule.
pub struct Served {
    /// From arrival to answer, by arrival.
    pub latencies: Vec<Duration>,
    /// Requests of each call.
    pub batches: Vec<usize>,
    /// When the last answer was there.
    pub end: Duration,
}

/// Answers the requests that arrive at the times of `schedule`: each caller takes what has arrived and nobody has taken,
/// up to a batch, waits for the next where there is none, and gives the range to `answer`.
pub fn serve(
    schedule: &[Duration],
    team: Team,
    clock: &impl Clock,
    answer: impl Fn(Range<usize>) + Sync,
) -> Served {
    let next = Mutex::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some(batch) = take(&next, schedule, team.batch, clock) {
            answer(batch.clone());
            let answered = clock.now();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((batch, answered));
        }
    };
    std::thread::scope(|scope| (0..team.callers).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(batch, _)| batch.start);
    Served {
        latencies: done
            .iter()
            .flat_map(|(batch, answered)| schedule[batch.clone()].iter().map(|arrival| *answered - *arrival))
            .collect(),
        batches: done.iter().map(|(batch, _)| batch.len()).collect(),
        end: done.iter().map(|(_, answered)| *answered).max().unwrap_or_default(),
    }
}

/// The next requests to be answered; none where all have been taken. Who waits for an arrival holds the others back, which
/// have nothing to do before it either.
fn take(next: &Mutex<usize>, schedule: &[Duration], most: usize, clock: &impl Clock) -> Option<Range<usize>> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let first = *next;
    clock.wait_until(*schedule.get(first)?);
    let now = clock.now();
    let arrived = schedule[first..].iter().take(most).take_while(|arrival| **arrival <= now).count();
    *next = first + arrived;
    Some(first..*next)
}
