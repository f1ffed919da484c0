//! What the host side asks of a device: memory, copies and kernel launches in the order of one stream.

mod argument;
mod buffer;
mod shape;
mod tensor_map;

use std::time::Duration;

pub use self::argument::{Element, ElementType, KernelArgument, Ptr, PtrMut};
pub use self::buffer::Buffer;
pub use self::shape::{LaunchShape, Launches};
pub use self::tensor_map::{Boxes, Swizzle, Tensor, TensorMap};
use crate::error::DeviceError;

/// An address in device memory.
pub type Address = u64;

/// A queue of work on a device. What is enqueued runs in order; only [`Stream::download`] and [`Stream::synchronize`]
/// wait.
///
/// # Errors
/// Every call may return [`DeviceError::Failed`], also for work enqueued before it. After a fault in a kernel the
/// device's state is lost and every later call fails.
pub trait Stream: Send + Sync {
    /// The device's name and what runs it, for reports.
    fn describe(&self) -> String;

    /// What the bits of results depend on: the kind of the device, without its place, its name or its driver.
    fn kind(&self) -> String;

    /// Allocates `bytes` > 0, aligned to 256, with undefined contents.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError>;

    /// Gives back what [`Stream::allocate`] gave, after all work that is enqueued. Never fails and never panics:
    /// there is nobody left to tell.
    fn free(&self, address: Address);

    /// Enqueues a copy to the device; `from` may be changed as soon as the call returns.
    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError>;

    /// Waits for all work enqueued so far and copies from the device.
    fn download(&self, copies: &mut [Download]) -> Result<(), DeviceError>;

    /// Enqueues a copy within the device; the two regions do not overlap.
    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError>;

    /// Enqueues a launch. `arguments` are the bytes of each parameter, as `kernel` describes them.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] for a launch in clusters where [`Stream::hopper`] refuses.
    fn launch(
        &self,
        kernel: &'static Kernel,
        shape: LaunchShape,
        arguments: &[&[u8]],
    ) -> Result<(), DeviceError>;

    /// How many blocks of such launches are resident at once where nothing else runs, whatever the shape's grid: a number
    /// of whole clusters, and 0 where not even one is.
    fn resident(&self, kernel: &'static Kernel, shape: LaunchShape) -> Result<usize, DeviceError>;

    /// How the launches that are enqueued or recorded from now on follow those before them; at first ordinary ones.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] for [`Launches::Programmatic`] where [`Stream::hopper`] refuses: the kernels' code for
    /// other GPUs does not wait.
    fn set_launches(&self, launches: Launches) -> Result<(), DeviceError>;

    /// Whether kernels that are made for Hopper run here.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] where they do not.
    fn hopper(&self) -> Result<(), DeviceError>;

    /// What this device's bulk copies are to know of `tensor`; nothing is enqueued. See [`TensorMap::new`].
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] where [`Stream::hopper`] refuses, [`DeviceError::Failed`] for what the device's copies
    /// cannot do.
    fn tensor_map(&self, tensor: &Tensor) -> Result<TensorMap, DeviceError>;

    /// Waits for all work enqueued so far.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// Runs `work` and waits for it: the time between its begin and its end on the device.
    ///
    /// # Errors
    /// Those of `work`, and [`DeviceError::Failed`].
    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError>;

    /// Most dynamic shared memory of a block, in bytes.
    fn shared_bytes(&self) -> usize;

    /// Records the launches and copies that `work` enqueues on this stream, instead of running them. Nothing else may
    /// happen on the stream meanwhile, from no thread: it is refused, and a buffer that is dropped spoils the recording.
    ///
    /// # Errors
    /// Those of `work`, and [`DeviceError::Failed`]. The stream is as it was.
    fn capture(
        &self,
        work: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Box<dyn Graph>, DeviceError>;
}

/// A copy to the host.
#[derive(Debug)]
pub struct Download<'h> {
    /// Where the bytes are in device memory.
    pub from: Address,
    /// Where they go.
    pub to: &'h mut [u8],
}

/// Work that was recorded by [`Stream::capture`], with all its arguments. The buffers that it uses must outlive it.
pub trait Graph: Send {
    /// Enqueues the work on the stream that recorded it.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    fn launch(&self) -> Result<(), DeviceError>;
}

/// A kernel as its launcher describes it; the tests hold this to the signature in the `.cu` file.
#[derive(Debug)]
pub struct Kernel {
    /// Name of the `extern "C"` function.
    pub name: &'static str,
    /// File in `kernels/`, without `.cu`.
    pub file: &'static str,
    /// Its parameters in order.
    pub parameters: &'static [Parameter],
}

/// A parameter of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the launcher.
    pub name: &'static str,
    /// Its type in C++, as compilers print it: `float const*`, `unsigned int`.
    pub cpp: &'static str,
}

/// Typed launchers, one per kernel of a `.cu` file, and `KERNELS`, their descriptions.
///
/// ```
/// bidslate::kernels! {
///     in "add";
///
///     /// y = x + y, both `[n]`.
///     fn add(x: Ptr<f32>, y: PtrMut<f32>, n: u32);
/// }
/// assert_eq!(KERNELS[0].name, "add");
/// assert_eq!(KERNELS[0].parameters[0].cpp, "float const*");
/// ```
#[macro_export]
macro_rules! kernels {
    (in $file:literal; $($(#[$doc:meta])* fn $name:ident($($parameter:ident: $type:ty),* $(,)?);)+) => {
        #[allow(unused_imports)]
        use $crate::cuda::launch::{Ptr, PtrMut, TensorMap};

        /// The kernels of this file.
        pub static KERNELS: &[$crate::cuda::launch::Kernel] = &[$(
            $crate::cuda::launch::Kernel {
                name: stringify!($name),
                file: $file,
                parameters: &[$($crate::cuda::launch::Parameter {
                    name: stringify!($parameter),
                    cpp: <$type as $crate::cuda::launch::KernelArgument>::CPP,
                }),*],
            }
        ),+];

        $crate::kernels!(@launchers 0usize; $($(#[$doc])* fn $name($($parameter: $type),*);)+);
    };
    (@launchers $index:expr;) => {};
    (@launchers $index:expr; $(#[$doc:meta])* fn $name:ident($($parameter:ident: $type:ty),*); $($rest:tt)*) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`DeviceError::Failed`]($crate::error::DeviceError::Failed) where the launch is refused.
        #[allow(clippy::too_many_arguments)]
        pub fn $name(
            stream: &dyn $crate::cuda::launch::Stream,
            shape: $crate::cuda::launch::LaunchShape,
            $($parameter: $type),*
        ) -> Result<(), $crate::error::DeviceError> {
            let arguments = [$($crate::cuda::launch::KernelArgument::bytes(&$parameter)),*];
            stream.launch(&KERNELS[$index], shape, &arguments)
        }

        $crate::kernels!(@launchers $index + 1usize; $($rest)*);
    };
}
