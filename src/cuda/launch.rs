//! What the host side asks of a device: memory, copies and kernel launches in the order of one stream.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use half::bf16;

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

    /// Enqueues a launch. `arguments` are as `kernel` describes them.
    fn launch(
        &self,
        kernel: &'static Kernel,
        shape: LaunchShape,
        arguments: &[Argument],
    ) -> Result<(), DeviceError>;

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

/// The blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
}

impl LaunchShape {
    /// Blocks of `block` threads without dynamic shared memory.
    pub fn new(grid: [u32; 3], block: u32) -> Self {
        Self { grid, block, shared_bytes: 0 }
    }

    /// With `bytes` of dynamic shared memory.
    pub fn shared(self, bytes: u32) -> Self {
        Self { shared_bytes: bytes, ..self }
    }
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

/// The value of a parameter: its bytes in the low end of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// The bytes, in the order of the machine.
    pub word: [u8; 8],
    /// How many of them count.
    pub size: usize,
}

/// A type that kernels take as a parameter.
pub trait KernelArgument: Copy {
    /// Its name in C++, as compilers print it.
    const CPP: &'static str;

    /// The value for a launch.
    fn argument(self) -> Argument;
}

/// A type of which device memory holds arrays.
pub trait Element: Pod {
    /// `T const*` in C++.
    const CONST_POINTER: &'static str;
    /// `T*` in C++.
    const POINTER: &'static str;
}

macro_rules! scalars {
    ($($rust:ty = $cpp:literal),* $(,)?) => {$(
        impl KernelArgument for $rust {
            const CPP: &'static str = $cpp;

            fn argument(self) -> Argument {
                let bytes = self.to_ne_bytes();
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(&bytes);
                Argument { word, size: bytes.len() }
            }
        }
    )*};
}

scalars!(u32 = "unsigned int", i32 = "int", u64 = "unsigned long long", f32 = "float", f64 = "double");

macro_rules! elements {
    ($($rust:ty = $cpp:literal),* $(,)?) => {$(
        impl Element for $rust {
            const CONST_POINTER: &'static str = concat!($cpp, " const*");
            const POINTER: &'static str = concat!($cpp, "*");
        }
    )*};
}

elements!(
    u8 = "unsigned char",
    u16 = "unsigned short",
    u32 = "unsigned int",
    i32 = "int",
    u64 = "unsigned long long",
    f32 = "float",
    f64 = "double",
    bf16 = "__nv_bfloat16",
);

/// An array in device memory that a kernel reads.
#[derive(Debug)]
pub struct Ptr<T>(Address, PhantomData<T>);

/// An array in device memory that a kernel writes.
#[derive(Debug)]
pub struct PtrMut<T>(Address, PhantomData<T>);

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Clone for PtrMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ptr<T> {}
impl<T> Copy for PtrMut<T> {}

impl<T> Ptr<T> {
    /// No array, where a kernel takes one or none.
    pub const NULL: Self = Self(0, PhantomData);
}

impl<T> PtrMut<T> {
    /// No array, where a kernel takes one or none.
    pub const NULL: Self = Self(0, PhantomData);

    /// The same array, to be read.
    pub fn read(self) -> Ptr<T> {
        Ptr(self.0, PhantomData)
    }
}

impl<T: Element> KernelArgument for Ptr<T> {
    const CPP: &'static str = T::CONST_POINTER;

    fn argument(self) -> Argument {
        self.0.argument()
    }
}

impl<T: Element> KernelArgument for PtrMut<T> {
    const CPP: &'static str = T::POINTER;

    fn argument(self) -> Argument {
        self.0.argument()
    }
}

/// An array of `T` in device memory.
pub struct Buffer<T> {
    stream: Arc<dyn Stream>,
    address: Address,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// An array of `len` elements with undefined contents.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, len: usize) -> Result<Self, DeviceError> {
        // An empty array has an address too: kernels may be given it, and read nothing.
        let address = stream.allocate((len * size_of::<T>()).max(1))?;
        Ok(Self { stream: stream.clone(), address, len, element: PhantomData })
    }

    /// An array that holds `values`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn from_slice(stream: &Arc<dyn Stream>, values: &[T]) -> Result<Self, DeviceError> {
        let mut buffer = Self::new(stream, values.len())?;
        buffer.upload(0, values)?;
        Ok(buffer)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The elements from `start` on, for a kernel to read.
    pub fn at(&self, start: usize) -> Ptr<T> {
        Ptr(self.address_of(start, 0), PhantomData)
    }

    /// The elements from `start` on, for a kernel to write.
    pub fn at_mut(&mut self, start: usize) -> PtrMut<T> {
        PtrMut(self.address_of(start, 0), PhantomData)
    }

    /// The whole array, for a kernel to read.
    pub fn ptr(&self) -> Ptr<T> {
        self.at(0)
    }

    /// The whole array, for a kernel to write.
    pub fn ptr_mut(&mut self) -> PtrMut<T> {
        self.at_mut(0)
    }

    /// Enqueues a copy of `values` to the elements from `start` on.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn upload(&mut self, start: usize, values: &[T]) -> Result<(), DeviceError> {
        if values.is_empty() {
            return Ok(());
        }
        self.stream.upload(self.address_of(start, values.len()), bytemuck::cast_slice(values))
    }

    /// Waits for the stream and copies the elements from `start` on into `values`.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn download(&self, start: usize, values: &mut [T]) -> Result<(), DeviceError> {
        if values.is_empty() {
            return Ok(());
        }
        self.stream.download(&mut [self.reading(start, values)])
    }

    /// The copy of the elements from `start` on into `values`, to be made together with others.
    pub fn reading<'h>(&self, start: usize, values: &'h mut [T]) -> Download<'h> {
        Download { from: self.address_of(start, values.len()), to: bytemuck::cast_slice_mut(values) }
    }

    /// Waits for the stream and copies the whole array.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn to_vec(&self) -> Result<Vec<T>, DeviceError> {
        let mut values = vec![T::zeroed(); self.len];
        self.download(0, &mut values)?;
        Ok(values)
    }

    fn address_of(&self, start: usize, count: usize) -> Address {
        assert!(start + count <= self.len, "{count} elements from {start} of {}", self.len);
        self.address + (start * size_of::<T>()) as Address
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.stream.free(self.address);
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer<{}>[{}]", std::any::type_name::<T>(), self.len)
    }
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
        use $crate::cuda::launch::{Ptr, PtrMut};

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
            let arguments = [$($crate::cuda::launch::KernelArgument::argument($parameter)),*];
            stream.launch(&KERNELS[$index], shape, &arguments)
        }

        $crate::kernels!(@launchers $index + 1usize; $($rest)*);
    };
}
