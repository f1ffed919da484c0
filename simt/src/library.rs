//! The shared libraries with the emulator and the kernels, and the functions the emulator exports.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use crate::fault::OpenError;
use crate::signature::{Argument, Signature};

/// The two builds of the emulator and the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Build {
    /// Fast. Reports deadlocks, wrong masks and wrong barriers, but not what the check build is for.
    Plain,
    /// Instrumented: each access to memory is checked for bounds, alignment, initialisation, copies in flight and
    /// races, and undefined behaviour is reported.
    Check,
}

/// Where the build script put the libraries.
const DIRECTORY: &str = env!("SIMT_LIBRARIES");
/// The kernels' libraries, without extension.
const KERNEL_LIBRARIES: &[&str] = include!(concat!(env!("OUT_DIR"), "/libraries.rs"));

/// Length of the texts that cross the border to C++.
pub(crate) const TEXT_BYTES: usize = 1024;
pub(crate) type Text = [u8; TEXT_BYTES];

/// A text up to its terminating zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[repr(C)]
pub(crate) struct RawLaunch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared_bytes: u32,
    pub cluster: u32,
    pub cooperative: u32,
    pub dependent: u32,
    pub schedule: u32,
    pub copies: u32,
    pub schedule_seed: u64,
    pub copies_seed: u64,
}

#[repr(C)]
pub(crate) struct RawPlace {
    pub file: Text,
    pub line: u32,
    pub instruction: u64,
}

#[repr(C)]
pub(crate) struct RawFault {
    pub kind: u32,
    pub has_thread: u32,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    pub message: [u8; 2 * TEXT_BYTES],
    pub place: RawPlace,
    pub other_place: RawPlace,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct RawStats {
    pub blocks: u64,
    pub switches: u64,
    pub collectives: u64,
    pub accesses: u64,
}

#[repr(C)]
struct RawKernel {
    name: *const c_char,
    parameter_count: u32,
}

#[repr(C)]
struct RawParameter {
    size: u32,
    is_pointer: u32,
    type_name: Text,
}

/// A kernel library as the C++ side knows it. It lives as long as the process.
type Loaded = *const c_void;

/// The emulator's exported functions; `emulator/source/interface.cpp` defines them.
pub(crate) struct Functions {
    load: unsafe extern "C" fn(library: *const c_void) -> Loaded,
    kernel_count: unsafe extern "C" fn(Loaded) -> u32,
    file: unsafe extern "C" fn(Loaded) -> *const c_char,
    kernel: unsafe extern "C" fn(Loaded, u32, *mut RawKernel),
    parameter: unsafe extern "C" fn(Loaded, u32, u32, *mut RawParameter),
    pub launch: unsafe extern "C" fn(
        Loaded,
        u32,
        *const RawLaunch,
        *const *const c_void,
        *mut RawStats,
        *mut RawFault,
    ) -> bool,
    pub allocate: unsafe extern "C" fn(u64) -> u64,
    pub free: unsafe extern "C" fn(u64, *mut u8) -> bool,
    pub write: unsafe extern "C" fn(u64, *const u8, u64, *mut u8) -> bool,
    pub read: unsafe extern "C" fn(u64, *mut u8, u64, *mut u8) -> bool,
    pub copy: unsafe extern "C" fn(u64, u64, u64, *mut u8) -> bool,
    pub fill: unsafe extern "C" fn(u64, u64, u8, *mut u8) -> bool,
}

impl Functions {
    fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of the definitions in `interface.cpp`, which is built with this file.
        unsafe {
            Ok(Self {
                load: *library.get(b"simt_load")?,
                kernel_count: *library.get(b"simt_kernel_count")?,
                file: *library.get(b"simt_file")?,
                kernel: *library.get(b"simt_kernel")?,
                parameter: *library.get(b"simt_parameter")?,
                launch: *library.get(b"simt_launch")?,
                allocate: *library.get(b"simt_allocate")?,
                free: *library.get(b"simt_free")?,
                write: *library.get(b"simt_write")?,
                read: *library.get(b"simt_read")?,
                copy: *library.get(b"simt_copy")?,
                fill: *library.get(b"simt_fill")?,
            })
        }
    }
}

/// A kernel and where it is.
pub(crate) struct Kernel {
    pub signature: Signature,
    pub loaded: Loaded,
    pub index: u32,
    /// The library's file, for the lines of faults.
    pub path: PathBuf,
}

// SAFETY: `loaded` points to constants that live as long as the process.
unsafe impl Send for Kernel {}
// SAFETY: likewise.
unsafe impl Sync for Kernel {}

/// A build with all its kernels.
pub(crate) struct Libraries {
    pub functions: Functions,
    pub kernels: BTreeMap<String, Kernel>,
}

impl Libraries {
    /// The libraries of a build, which are loaded once and for good.
    pub fn get(build: Build) -> Result<&'static Self, OpenError> {
        static PLAIN: OnceLock<Result<Libraries, OpenError>> = OnceLock::new();
        static CHECK: OnceLock<Result<Libraries, OpenError>> = OnceLock::new();
        let (cell, name) = match build {
            Build::Plain => (&PLAIN, "plain"),
            Build::Check => (&CHECK, "check"),
        };
        cell.get_or_init(|| Self::load(name)).as_ref().map_err(Clone::clone)
    }

    fn load(build: &str) -> Result<Self, OpenError> {
        let directory = Path::new(DIRECTORY).join(build);
        let path = directory.join(format!("libsimt_{build}.so"));
        let fail = |error: libloading::Error| library_error(&path, error);
        let functions = Functions::of(open(&path)?).map_err(fail)?;
        let mut libraries = Self { functions, kernels: BTreeMap::new() };
        for name in KERNEL_LIBRARIES {
            libraries.add_kernels(&directory.join(name).with_extension("so"))?;
        }
        Ok(libraries)
    }

    fn add_kernels(&mut self, path: &Path) -> Result<(), OpenError> {
        let library = open(path)?;
        // SAFETY: the table is a constant; only its address is taken, for the C++ side.
        let table: Symbol<*const c_void> =
            unsafe { library.get(b"simt_library") }.map_err(|error| library_error(path, error))?;
        // SAFETY: `simt_library` is what `simt_load` expects, and stays loaded.
        let loaded = unsafe { (self.functions.load)(table.as_raw_ptr()) };
        // SAFETY: `loaded` comes from `simt_load`.
        let count = unsafe { (self.functions.kernel_count)(loaded) };
        for index in 0..count {
            let signature = self.signature(loaded, index);
            match self.kernels.entry(signature.name.clone()) {
                Entry::Occupied(other) => {
                    return Err(OpenError::DuplicateKernel {
                        name: signature.name,
                        first: other.get().signature.file.clone(),
                        second: signature.file,
                    });
                }
                Entry::Vacant(place) => {
                    place.insert(Kernel { signature, loaded, index, path: path.to_owned() });
                }
            }
        }
        Ok(())
    }

    fn signature(&self, loaded: Loaded, index: u32) -> Signature {
        let mut kernel = RawKernel { name: std::ptr::null(), parameter_count: 0 };
        // SAFETY: `loaded` comes from `simt_load` and has a kernel `index`; the strings are constants of its library.
        let (name, file) = unsafe {
            (self.functions.kernel)(loaded, index, &mut kernel);
            (CStr::from_ptr(kernel.name), CStr::from_ptr((self.functions.file)(loaded)))
        };
        let arguments = (0..kernel.parameter_count).map(|parameter| {
            let mut raw = RawParameter { size: 0, is_pointer: 0, type_name: [0; TEXT_BYTES] };
            // SAFETY: the kernel has this parameter.
            unsafe { (self.functions.parameter)(loaded, index, parameter, &mut raw) };
            Argument {
                size: raw.size as usize,
                pointer: raw.is_pointer != 0,
                type_name: text(&raw.type_name),
            }
        });
        Signature {
            name: name.to_string_lossy().into_owned(),
            file: file.to_string_lossy().into_owned(),
            arguments: arguments.collect(),
        }
    }
}

/// Loads a library for good. Its symbols stay apart from those of the other build.
fn open(path: &Path) -> Result<&'static Library, OpenError> {
    // SAFETY: the build script made the library; loading it runs no code of the kernels, only the set-up of C++.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    Ok(Box::leak(Box::new(library.map_err(|error| library_error(path, error))?)))
}

fn library_error(path: &Path, error: libloading::Error) -> OpenError {
    OpenError::Library { path: path.to_owned(), message: error.to_string() }
}
