//! How many blocks of a kernel a multiprocessor holds at a time, by the rules of the CUDA occupancy calculator.

/// What a multiprocessor has; registers are 65,536 on all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chip {
    warps: u32,
    blocks: u32,
    /// Bytes of shared memory, and how many each block costs besides its own.
    shared: u32,
    reserved: u32,
}

/// A chip by its compute capability.
pub(super) fn chip(arch: &str) -> Option<Chip> {
    let (warps, blocks, kib) = match arch {
        "75" => (32, 16, 64),
        "80" => (64, 32, 164),
        "86" => (48, 16, 100),
        "89" => (48, 24, 100),
        "90" | "100" => (64, 32, 228),
        "120" => (48, 24, 100),
        _ => return None,
    };
    Some(Chip { warps, blocks, shared: kib << 10, reserved: if arch == "75" { 0 } else { 1 << 10 } })
}

/// Blocks at a time and the share of the warps that they are, in percent.
pub(super) fn of(chip: Chip, registers: u32, threads: u32, shared: u32) -> (u32, u32) {
    const REGISTERS: u32 = 65_536;
    let warps = threads.div_ceil(32).max(1);
    // Registers are given out to warps, 256 at a time; each of the four partitions holds its own warps.
    let each = (registers.max(1) * 32).div_ceil(256) * 256;
    let by_registers = (REGISTERS / each) / 4 * 4 / warps;
    let by_shared = match shared + chip.reserved {
        0 => chip.blocks,
        bytes => chip.shared / bytes.next_multiple_of(128),
    };
    let blocks = by_registers.min(by_shared).min(chip.blocks).min(chip.warps / warps);
    (blocks, 100 * blocks * warps / chip.warps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calculators_examples() {
        let at = |arch: &str, registers, threads, shared| of(chip(arch).unwrap(), registers, threads, shared);
        assert_eq!(at("80", 32, 256, 0), (8, 100));
        assert_eq!(at("80", 64, 256, 0), (4, 50));
        assert_eq!(at("80", 96, 256, 8192), (2, 25));
        assert_eq!(at("90", 232, 256, 98_304), (1, 12));
        // 49,152 and 1024 reserved: three fit into 164 KiB, two by registers.
        assert_eq!(at("80", 128, 256, 49_152), (2, 25));
        assert_eq!(at("86", 32, 256, 0), (6, 100));
        assert_eq!(at("75", 32, 1024, 0), (1, 100));
        assert_eq!(at("80", 255, 512, 0), (0, 0));
        assert!(chip("42").is_none());
    }
}
