//! Threads that work together on one request and stay awake between its operations.
//!
//! A decode step is some thirty operations of a fraction of a millisecond. A pool whose threads fall asleep between
//! them pays for waking them each time, which costs more than some operations do. Here the threads of a pool are
//! borrowed once per request; between operations they spin, for a while, and sleep after that.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of an idle thread's loop before it sleeps: some tens of microseconds.
const SPINS: u32 = 1 << 13;

/// What the threads do: piece i of an operation.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Threads that share the pieces of one operation after the other, seen by their leader: the thread that made it, and
/// no other.
pub struct Team {
    crew: Arc<Crew>,
    helpers: Vec<JoinHandle<()>>,
    /// Operations follow one another, so only one thread may start them: a team is not `Sync`.
    one_leader: PhantomData<Cell<()>>,
}

impl Team {
    /// Runs `lead` with the threads of `pool` at its service. The calling thread is one of them, and should belong to
    /// the pool (`pool.install`). Threads of the pool that are busy join when they are free; nothing waits for them.
    pub fn assemble<R>(pool: &rayon::ThreadPool, lead: impl FnOnce(&Self) -> R) -> R {
        let crew = Arc::new(Crew::new(pool.current_num_threads()));
        pool.in_place_scope(|scope| {
            for _ in 1..crew.threads {
                scope.spawn(|_| crew.serve());
            }
            let team = Self { crew: crew.clone(), helpers: Vec::new(), one_leader: PhantomData };
            lead(&team)
        })
    }

    /// A team of the calling thread and `threads - 1` new ones, which last as long as it does.
    ///
    /// # Errors
    /// The system's, where it starts no more threads.
    pub fn spawn(threads: usize) -> std::io::Result<Self> {
        let crew = Arc::new(Crew::new(threads));
        let mut team = Self { crew, helpers: Vec::new(), one_leader: PhantomData };
        for _ in 1..threads {
            let crew = team.crew.clone();
            team.helpers.push(std::thread::Builder::new().spawn(move || crew.serve())?);
        }
        Ok(team)
    }

    /// Threads of the team, its leader included.
    pub fn threads(&self) -> usize {
        self.crew.threads
    }

    /// Runs `work(0)` .. `work(pieces - 1)`, each once, and returns when all are finished.
    pub(crate) fn share(&self, pieces: usize, work: Work<'_>) {
        // SAFETY: a team has one leader, and a piece, which may run on any thread, cannot hold on to the team.
        unsafe { self.crew.share(pieces, work) }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.crew.dismiss();
        for helper in self.helpers.drain(..) {
            // A helper that panicked has told the leader so.
            let _ = helper.join();
        }
    }
}

/// What the threads of a team have in common.
struct Crew {
    threads: usize,
    /// Number of the operation in the high half, pieces of it that nobody has taken in the low half. One word, so
    /// that who takes a piece knows that it is one of the operation whose work it will read.
    open: AtomicU64,
    /// Pieces of the operation that are not finished.
    unfinished: AtomicUsize,
    /// The operation; valid from when its pieces are open until the last is finished.
    work: UnsafeCell<Option<Work<'static>>>,
    panicked: AtomicBool,
    dismissed: AtomicBool,
    asleep: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
}

// SAFETY: `work` is written by the leader alone, while no piece is open or unfinished, and read by those who have
// taken a piece.
unsafe impl Send for Crew {}
// SAFETY: as above.
unsafe impl Sync for Crew {}

impl Crew {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            open: AtomicU64::new(0),
            unfinished: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            door: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    /// [`Team::share`].
    ///
    /// # Safety
    ///
    /// No other call of it may be under way: none from another thread, and none from within a piece.
    unsafe fn share(&self, pieces: usize, work: Work<'_>) {
        // SAFETY: only the lifetime changes. Who takes a piece finishes it, and this function returns after the last
        // is finished, so nobody calls `work` after that.
        let work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        // SAFETY: no piece is open or unfinished, so nobody reads it now.
        unsafe { *self.work.get() = Some(work) };
        self.unfinished.store(pieces, Ordering::Relaxed);
        let number = (self.open.load(Ordering::Relaxed) >> 32) + 1;
        self.open.store((number << 32) | pieces as u64, Ordering::SeqCst);
        // Either this sees that a thread sleeps, or the thread sees the open pieces before it does.
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.lock());
            self.bell.notify_all();
        }
        while self.run_piece() {}
        let mut spins = 0;
        while self.unfinished.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
        if self.panicked.swap(false, Ordering::Relaxed) {
            panic!("a piece of an operation panicked");
        }
    }

    /// Takes a piece and runs it; false if none is open.
    fn run_piece(&self) -> bool {
        let taken = self
            .open
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |open| (open as u32 > 0).then(|| open - 1));
        let Ok(open) = taken else { return false };
        // SAFETY: a piece of this operation is taken and not finished, so `work` is set and nobody writes it.
        let work = unsafe { *self.work.get() };
        let piece = (open as u32 - 1) as usize;
        let outcome = catch_unwind(AssertUnwindSafe(|| work.into_iter().for_each(|work| work(piece))));
        if outcome.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.unfinished.fetch_sub(1, Ordering::Release);
        true
    }

    fn has_open_piece(&self) -> bool {
        self.open.load(Ordering::SeqCst) as u32 > 0
    }

    /// Runs pieces until the team is dismissed.
    fn serve(&self) {
        let mut spins = 0;
        while !self.dismissed.load(Ordering::Acquire) {
            if self.run_piece() {
                spins = 0;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
                spins = 0;
            }
        }
    }

    /// Sleeps until a piece is open or the team is dismissed.
    fn sleep(&self) {
        let mut door = self.lock();
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while !self.has_open_piece() && !self.dismissed.load(Ordering::SeqCst) {
            door = self.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn dismiss(&self) {
        self.dismissed.store(true, Ordering::SeqCst);
        drop(self.lock());
        self.bell.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits a moment: a spin at first, the processor to others later.
fn pause(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_piece_of_every_operation_runs_once() {
        for threads in [1, 2, 3, 5] {
            let pool = pool(threads);
            let counts: Vec<_> = (0..7).map(|_| AtomicUsize::new(0)).collect();
            pool.install(|| {
                Team::assemble(&pool, |team| {
                    for operation in 0..2000 {
                        let pieces = operation % 8;
                        team.share(pieces, &|piece| _ = counts[piece].fetch_add(1, Ordering::Relaxed));
                        if operation % 500 == 0 {
                            // Long enough for the others to fall asleep.
                            std::thread::sleep(std::time::Duration::from_millis(5));
                        }
                    }
                });
            });
            let counts: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            assert_eq!(counts, [1750, 1500, 1250, 1000, 750, 500, 250]);
        }
    }

    #[test]
    fn teams_on_a_pool_smaller_than_they_are_come_to_an_end() {
        let pool = pool(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    pool.install(|| {
                        Team::assemble(&pool, |team| {
                            for _ in 0..100 {
                                team.share(3, &|piece| _ = sum.fetch_add(piece, Ordering::Relaxed));
                            }
                        });
                    });
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 100 * 3);
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_leader() {
        let pool = pool(2);
        let run = || {
            pool.install(|| Team::assemble(&pool, |team| team.share(2, &|piece| assert_eq!(piece, 0))));
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert_eq!(pool.install(|| Team::assemble(&pool, Team::threads)), 2);
    }

    #[test]
    fn a_spawned_team_works_and_goes() {
        for threads in [0, 1, 2, 4] {
            let team = Team::spawn(threads).unwrap();
            let sum = AtomicUsize::new(0);
            for _ in 0..100 {
                team.share(5, &|piece| _ = sum.fetch_add(piece, Ordering::Relaxed));
            }
            assert_eq!(sum.into_inner(), 100 * 10);
        }
    }
}
