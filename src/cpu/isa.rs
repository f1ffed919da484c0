//! Instruction sets, and the one place where code compiled for them is entered.

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// What every machine of the target has. On x86-64 without fused multiply-add: correct, and slow.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL), and with AVX512-BF16 where the machine has it.
    Avx512,
}

impl Isa {
    /// The best one that this machine has.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Scalar)
    }

    /// All that this machine has.
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512].into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Scalar => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        matches!(self, Self::Scalar)
    }

    /// Runs `kernel` as compiled for this instruction set, or for [`Isa::Scalar`] where the machine lacks it.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx512 if self.is_available() && is_x86_feature_detected!("avx512bf16") => {
                // SAFETY: the features that `avx512_bf16` enables were detected just now.
                return unsafe { avx512_bf16(kernel) };
            }
            Self::Avx512 if self.is_available() => {
                // SAFETY: the features that `avx512` enables were detected just now.
                return unsafe { avx512(kernel) };
            }
            Self::Avx2 if self.is_available() => {
                // SAFETY: the features that `avx2` enables were detected just now.
                return unsafe { avx2(kernel) };
            }
            _ => {}
        }
        kernel.run::<Scalar>()
    }
}

/// What a kernel may know at compile time of the machine that it is compiled for.
pub(crate) trait Machine {
    /// 512-bit registers, 32 of them; otherwise the tiles are cut for sixteen of 256 bits.
    const WIDE: bool;
    /// Fused multiply-adds on vectors of 256 bits, at least.
    const FMA: bool;
    /// Products of pairs of bf16 numbers in hardware.
    const BF16: bool;
}

/// See [`Isa::Scalar`].
pub(crate) struct Scalar;
/// See [`Isa::Avx2`].
pub(crate) struct Avx2;
/// See [`Isa::Avx512`].
pub(crate) struct Avx512;
/// [`Isa::Avx512`] with AVX512-BF16.
pub(crate) struct Avx512Bf16;

impl Machine for Scalar {
    const FMA: bool = false;
    const WIDE: bool = false;
    const BF16: bool = false;
}
impl Machine for Avx2 {
    const FMA: bool = true;
    const WIDE: bool = false;
    const BF16: bool = false;
}
impl Machine for Avx512 {
    const FMA: bool = true;
    const WIDE: bool = true;
    const BF16: bool = false;
}
impl Machine for Avx512Bf16 {
    const FMA: bool = true;
    const WIDE: bool = true;
    const BF16: bool = true;
}

/// Code to be compiled for each instruction set. `run` and all that it calls must be `#[inline(always)]`: code that
/// is not inlined into the functions below is compiled for the base instruction set, and slow.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it.
    fn run<M: Machine>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi1,bmi2")]
fn avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512Bf16>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}
