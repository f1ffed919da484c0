//! The emulator: device memory and launches.

use std::ffi::c_void;

use crate::fault::{Fault, FaultKind, MemoryError, OpenError, Place};
use crate::library::{Build, Kernel, Libraries, RawFault, RawLaunch, RawPlace, RawStats, TEXT_BYTES, text};
use crate::schedule::{Copies, Schedule};
use crate::signature::Signature;
use crate::source;

/// An emulated GPU. Several threads may use one at once; each launch runs to its end on the thread that calls it.
///
/// All emulators of a build share their device memory: an address is good for each of them.
#[derive(Clone)]
pub struct Emulator {
    libraries: &'static Libraries,
    build: Build,
    schedule: Schedule,
    copies: Copies,
    dependent: bool,
}

/// What a launch took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Blocks that ran.
    pub blocks: u64,
    /// Switches from one thread to another.
    pub switches: u64,
    /// Warp collectives: shuffles, votes, `__syncwarp`, `ldmatrix`, `mma`.
    pub collectives: u64,
    /// Accesses to memory that were checked; 0 on the plain build.
    pub accesses: u64,
}

impl Emulator {
    /// Opens a build, with [`Schedule::Forward`] and [`Copies::Lazy`].
    ///
    /// # Errors
    /// [`OpenError`] if its libraries do not load.
    pub fn open(build: Build) -> Result<Self, OpenError> {
        let libraries = Libraries::get(build)?;
        Ok(Self {
            libraries,
            build,
            schedule: Schedule::default(),
            copies: Copies::default(),
            dependent: false,
        })
    }

    /// With another order of threads.
    #[must_use]
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// With other moments at which asynchronous copies land.
    #[must_use]
    pub fn copies(self, copies: Copies) -> Self {
        Self { copies, ..self }
    }

    /// With launches that may begin while earlier ones still run (programmatic dependent launch): a thread that reaches
    /// device memory before it has waited for them is a fault, and so is one that ends without.
    #[must_use]
    pub fn dependent(self) -> Self {
        Self { dependent: true, ..self }
    }

    /// The build that was opened.
    pub fn build(&self) -> Build {
        self.build
    }

    /// All kernels, by name.
    pub fn kernels(&self) -> Vec<Signature> {
        self.libraries.kernels.values().map(|kernel| kernel.signature.clone()).collect()
    }

    /// Allocates `bytes` bytes of device memory, aligned to 256, and returns the address. They all are 0xff, which is
    /// NaN in every float format, and count as never written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn allocate(&self, bytes: usize) -> Result<u64, MemoryError> {
        // SAFETY: any number will do.
        match unsafe { (self.libraries.functions.allocate)(bytes as u64) } {
            0 => Err(MemoryError::OutOfMemory { bytes }),
            address => Ok(address),
        }
    }

    /// Frees what [`Emulator::allocate`] gave. No launch may be using it.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`] if it is not the address of an allocation.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        // SAFETY: the address is checked on the other side.
        checked(|text| unsafe { (self.libraries.functions.free)(address, text) })
    }

    /// Copies `from` to device memory.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`] if the range is not within an allocation.
    pub fn write(&self, to: u64, from: &[u8]) -> Result<(), MemoryError> {
        // SAFETY: `from` has its length; the device range is checked on the other side.
        checked(|text| unsafe {
            (self.libraries.functions.write)(to, from.as_ptr(), from.len() as u64, text)
        })
    }

    /// Copies device memory to `to`.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`] if the range is not within an allocation or, on the check build, if a byte of it was
    /// never written.
    pub fn read(&self, from: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        // SAFETY: `to` has its length; the device range is checked on the other side.
        checked(|text| unsafe {
            (self.libraries.functions.read)(from, to.as_mut_ptr(), to.len() as u64, text)
        })
    }

    /// Copies `bytes` bytes within device memory, with what is known about which of them were written.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`] if a range is not within an allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        // SAFETY: both ranges are checked on the other side.
        checked(|text| unsafe { (self.libraries.functions.copy)(to, from, bytes as u64, text) })
    }

    /// Sets `bytes` bytes of device memory to `value`.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`] if the range is not within an allocation.
    pub fn fill(&self, to: u64, bytes: usize, value: u8) -> Result<(), MemoryError> {
        // SAFETY: the range is checked on the other side.
        checked(|text| unsafe { (self.libraries.functions.fill)(to, bytes as u64, value, text) })
    }

    /// Runs a kernel on a grid of blocks and returns when it is done. `arguments` are the bytes of each parameter, in
    /// the order of the machine; those of a pointer are an address from [`Emulator::allocate`], those of a tensor map
    /// [`crate::TensorMap::bytes`].
    ///
    /// # Errors
    /// A [`Fault`]. On the plain build accesses out of bounds are not among them.
    ///
    /// # Safety
    /// On the plain build the kernel must stay within the memory that the arguments give it. No other thread may free
    /// or write this memory meanwhile.
    pub unsafe fn launch(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        arguments: &[&[u8]],
    ) -> Result<Stats, Fault> {
        // SAFETY: the caller's, which are the same.
        unsafe { self.launch_clusters(name, grid, block, 1, shared_bytes, arguments) }
    }

    /// [`Emulator::launch`] in clusters of `cluster` blocks along x, at most 16 blocks and 1024 threads of whole
    /// warps (4096 in the plain build). Their shared memory is the dynamic one alone.
    ///
    /// # Errors
    /// A [`Fault`].
    ///
    /// # Safety
    /// As [`Emulator::launch`].
    pub unsafe fn launch_clusters(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        cluster: u32,
        shared_bytes: u32,
        arguments: &[&[u8]],
    ) -> Result<Stats, Fault> {
        // SAFETY: the caller's, which are the same.
        unsafe { self.launch_blocks(name, (grid, block), (cluster, false), shared_bytes, arguments) }
    }

    /// [`Emulator::launch_clusters`] of a grid whose blocks all run at the same time and may wait for each other: at
    /// most 16 blocks and 1024 threads of whole warps (4096 in the plain build) in all. Their shared memory is the dynamic
    /// one alone.
    ///
    /// # Errors
    /// A [`Fault`].
    ///
    /// # Safety
    /// As [`Emulator::launch`].
    pub unsafe fn launch_cooperative(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        cluster: u32,
        shared_bytes: u32,
        arguments: &[&[u8]],
    ) -> Result<Stats, Fault> {
        // SAFETY: the caller's, which are the same.
        unsafe { self.launch_blocks(name, (grid, block), (cluster, true), shared_bytes, arguments) }
    }

    /// Any launch.
    ///
    /// # Safety
    /// As [`Emulator::launch`].
    unsafe fn launch_blocks(
        &self,
        name: &str,
        (grid, block): ([u32; 3], [u32; 3]),
        (cluster, cooperative): (u32, bool),
        shared_bytes: u32,
        arguments: &[&[u8]],
    ) -> Result<Stats, Fault> {
        let refuse = |message| refused(name, message);
        let Some(kernel) = self.libraries.kernels.get(name) else {
            return Err(refuse("there is no kernel of this name".to_owned()));
        };
        let values = aligned(&kernel.signature, arguments).map_err(refuse)?;
        let pointers: Vec<*const c_void> = values.iter().map(|value| value.as_ptr().cast()).collect();
        let ((schedule, schedule_seed), (copies, copies_seed)) = (self.schedule.raw(), self.copies.raw());
        let launch = RawLaunch {
            grid,
            block,
            dynamic_shared_bytes: shared_bytes,
            cluster,
            cooperative: cooperative.into(),
            dependent: self.dependent.into(),
            schedule,
            copies,
            schedule_seed,
            copies_seed,
        };
        let mut stats = RawStats::default();
        let mut fault = Box::<RawFault>::new_uninit();
        // SAFETY: there are as many arguments as parameters, of their sizes and aligned for any; the caller answers
        // for what the kernel does with them.
        let good = unsafe {
            (self.libraries.functions.launch)(
                kernel.loaded,
                kernel.index,
                &launch,
                pointers.as_ptr(),
                &mut stats,
                fault.as_mut_ptr(),
            )
        };
        if good {
            let RawStats { blocks, switches, collectives, accesses } = stats;
            return Ok(Stats { blocks, switches, collectives, accesses });
        }
        // SAFETY: a launch that fails fills in all of the fault.
        Err(import_fault(kernel, unsafe { fault.assume_init_ref() }))
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("build", &self.build)
            .field("schedule", &self.schedule)
            .field("copies", &self.copies)
            .field("dependent", &self.dependent)
            .finish()
    }
}

/// Calls a function that returns false with a message when it fails.
fn checked(call: impl FnOnce(*mut u8) -> bool) -> Result<(), MemoryError> {
    let mut message = [0; TEXT_BYTES];
    match call(message.as_mut_ptr()) {
        true => Ok(()),
        false => Err(MemoryError::Invalid { message: text(&message) }),
    }
}

/// Part of an argument, aligned for any type of a parameter.
#[derive(Clone)]
#[repr(align(128))]
struct Line([u8; 128]);

/// A value of a parameter.
struct Value(Vec<Line>);

impl Value {
    fn new(bytes: &[u8]) -> Self {
        let lines = bytes.chunks(128).map(|part| {
            let mut line = Line([0; 128]);
            line.0[..part.len()].copy_from_slice(part);
            line
        });
        Self(lines.collect())
    }

    fn as_ptr(&self) -> *const Line {
        self.0.as_ptr()
    }
}

/// The arguments, checked against the signature.
fn aligned(signature: &Signature, arguments: &[&[u8]]) -> Result<Vec<Value>, String> {
    let parameters = &signature.arguments;
    if parameters.len() != arguments.len() {
        return Err(format!("it takes {} arguments, not {}", parameters.len(), arguments.len()));
    }
    let values = parameters.iter().zip(arguments).enumerate().map(|(index, (parameter, bytes))| {
        if parameter.size != bytes.len() {
            let (size, given, name) = (parameter.size, bytes.len(), &parameter.type_name);
            return Err(format!("argument {index} is a {name} of {size} bytes, not of {given}"));
        }
        Ok(Value::new(bytes))
    });
    values.collect()
}

fn refused(kernel: &str, message: String) -> Fault {
    Fault {
        kernel: kernel.into(),
        kind: FaultKind::Launch,
        message,
        thread: None,
        place: None,
        other_place: None,
    }
}

fn import_fault(kernel: &Kernel, raw: &RawFault) -> Fault {
    let place = |raw: &RawPlace| match (raw.line, raw.instruction) {
        (0, 0) => None,
        (0, instruction) => Some(source::line_of(&kernel.path, instruction)),
        (line, _) => Some(Place { file: text(&raw.file).into(), line }),
    };
    Fault {
        kernel: kernel.signature.name.as_str().into(),
        kind: FaultKind::from_raw(raw.kind),
        message: text(&raw.message),
        thread: (raw.has_thread != 0).then_some((raw.block, raw.thread)),
        place: place(&raw.place),
        other_place: place(&raw.other_place),
    }
}
