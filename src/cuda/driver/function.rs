//! A kernel of a loaded module, and its launches.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchAttributeValue_union__bindgen_ty_1, CUlaunchConfig, CUresult, CUstream,
};
use cudarc::driver::{DriverError, result};

use crate::cuda::launch::{LaunchShape, Launches};

/// Shared memory that a block may have unasked, what its kernel declares included.
const SHARED_BYTES: u32 = 48 << 10;

/// Blocks that a cluster may have unasked: as many as fit on every Hopper card.
const CLUSTER: u32 = 8;

/// A kernel that can be launched.
pub(super) struct Function {
    handle: CUfunction,
    /// Size of each parameter in bytes, as compiled.
    parameters: Vec<usize>,
    /// Dynamic shared memory that a block may have.
    shared_bytes: AtomicU32,
    /// Blocks that a cluster may have.
    cluster: AtomicU32,
    /// Held while more is allowed: of two streams that ask at once, neither may take back what the other has got.
    allowing: Mutex<()>,
}

impl Function {
    /// Loads the code of a function of a loaded module: its name and itself.
    pub fn load(handle: CUfunction) -> Result<(String, Self), DriverError> {
        // SAFETY: the handle is of a loaded module.
        unsafe { sys::cuFuncLoad(handle) }.result()?;
        let mut name = ptr::null();
        // SAFETY: as above; the call writes one pointer.
        unsafe { sys::cuFuncGetName(&mut name, handle) }.result()?;
        // SAFETY: the driver's string lives as long as the module and ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let declared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        let declared = unsafe { result::function::get_function_attribute(handle, declared) }?;
        let shared_bytes = AtomicU32::new(SHARED_BYTES.saturating_sub(declared.max(0) as u32));
        let (cluster, allowing) = (AtomicU32::new(CLUSTER), Mutex::new(()));
        Ok((name, Self { handle, parameters: parameter_sizes(handle)?, shared_bytes, cluster, allowing }))
    }

    /// Size of each parameter in bytes, as compiled.
    pub fn parameters(&self) -> &[usize] {
        &self.parameters
    }

    /// Enqueues a launch on a stream of the context, which is current.
    ///
    /// # Safety
    /// `arguments` are as many as the parameters, each of its size, and the kernel may use the memory that they name.
    pub unsafe fn launch(
        &self,
        shape: LaunchShape,
        launches: Launches,
        arguments: &[&[u8]],
        stream: CUstream,
    ) -> Result<(), DriverError> {
        self.allow(shape)?;
        let mut attributes = attributes(shape, launches);
        let config = config(shape, &mut attributes, stream);
        let mut values: Vec<*mut c_void> =
            arguments.iter().map(|argument| argument.as_ptr().cast_mut().cast()).collect();
        // SAFETY: the function is loaded as long as the context is open; the driver copies the arguments before it
        // returns. The rest is the caller's promise.
        unsafe { sys::cuLaunchKernelEx(&config, self.handle, values.as_mut_ptr(), ptr::null_mut()) }.result()
    }

    /// Blocks of such launches that are resident at once on a device of so many multiprocessors.
    pub fn resident(&self, shape: LaunchShape, multiprocessors: i32) -> Result<usize, DriverError> {
        self.allow(shape)?;
        let (mut count, handle) = (0, self.handle);
        let LaunchShape { block, shared_bytes, cluster, .. } = shape;
        let each = if cluster > 1 {
            let mut attributes = attributes(shape, Launches::Ordinary);
            let config = config(shape, &mut attributes, ptr::null_mut());
            // SAFETY: the function is loaded, and the configuration and its attributes live; the call writes one integer.
            unsafe { sys::cuOccupancyMaxActiveClusters(&mut count, handle, &config) }.result()?;
            cluster as i32
        } else {
            let (block, shared) = (block as i32, shared_bytes as usize);
            // SAFETY: the function is loaded; the call writes one integer.
            let answer = unsafe {
                sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut count, handle, block, shared)
            };
            answer.result()?;
            multiprocessors
        };
        Ok((count * each).max(0) as usize)
    }

    /// Allows what a launch needs beyond what every kernel may have.
    fn allow(&self, shape: LaunchShape) -> Result<(), DriverError> {
        use CUfunction_attribute::*;
        let LaunchShape { shared_bytes, cluster, .. } = shape;
        self.raise(&self.shared_bytes, shared_bytes, || {
            self.set(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes)
        })?;
        self.raise(&self.cluster, cluster, || {
            self.set(CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
        })
    }

    /// Calls `allow` where more is needed than is allowed so far.
    fn raise(
        &self,
        allowed: &AtomicU32,
        needed: u32,
        allow: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        if needed <= allowed.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one_at_a_time = self.allowing.lock().unwrap_or_else(PoisonError::into_inner);
        if needed > allowed.load(Ordering::Acquire) {
            allow()?;
            allowed.store(needed, Ordering::Release);
        }
        Ok(())
    }

    fn set(&self, attribute: CUfunction_attribute, value: u32) -> Result<(), DriverError> {
        // SAFETY: the function is loaded.
        unsafe { result::function::set_function_attribute(self.handle, attribute, value as i32) }
    }
}

/// What a launch has beyond its grid. A kernel that is launched without clusters need not know of them.
fn attributes(shape: LaunchShape, launches: Launches) -> Vec<CUlaunchAttribute> {
    use CUlaunchAttributeID::*;
    let attribute = |id, value| CUlaunchAttribute { id, pad: [0; 4], value };
    let mut attributes = Vec::new();
    if shape.cluster != 1 {
        let size = CUlaunchAttributeValue_union__bindgen_ty_1 { x: shape.cluster, y: 1, z: 1 };
        let value = CUlaunchAttributeValue { clusterDim: size };
        attributes.push(attribute(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, value));
    }
    if shape.cooperative {
        let value = CUlaunchAttributeValue { cooperative: 1 };
        attributes.push(attribute(CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value));
    }
    // A grid whose blocks wait for each other has to be resident as a whole: it begins when all before it has ended.
    if launches == Launches::Programmatic && !shape.cooperative {
        let value = CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
        attributes.push(attribute(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value));
    }
    attributes
}

/// A launch as the driver takes it, which refers to `attributes`.
fn config(shape: LaunchShape, attributes: &mut [CUlaunchAttribute], stream: CUstream) -> CUlaunchConfig {
    let LaunchShape { grid: [x, y, z], block, shared_bytes, .. } = shape;
    CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shared_bytes,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    }
}

fn parameter_sizes(function: CUfunction) -> Result<Vec<usize>, DriverError> {
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the call writes two integers.
        let answer = unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) };
        match answer {
            CUresult::CUDA_SUCCESS => sizes.push(size),
            // Past the last.
            CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(sizes),
            error => return Err(DriverError(error)),
        }
    }
}
