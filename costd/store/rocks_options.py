"""How RocksDB is set up: small and bounded, whatever it holds.

The figures behind the numbers stand in docs/adr/0003-store-on-rocksdb.md.
"""

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options

MIB = 1024 * 1024

BLOCK_CACHE_BYTES = 32 * MIB
MEMTABLES_BYTES = 32 * MIB
MEMTABLE_BYTES = 8 * MIB
WAL_BYTES_MAX = 32 * MIB
"""What a start after `kill -9` may have to replay; a third of a second."""

TABLE_BYTES = 8 * MIB
LEVEL_BASE_BYTES = 32 * MIB
OPEN_FILES_MAX = 256
LOG_FILE_BYTES = MIB
LOG_FILES_MAX = 4
MANIFEST_BYTES_MAX = 4 * MIB
BLOOM_BITS_PER_KEY = 10
"""One absent key in a hundred costs a read."""

DELETIONS_WINDOW, DELETIONS_TRIGGER, DELETIONS_RATIO = 1024, 512, 0.5
"""A table with half of 1,024 neighbouring entries deleted is compacted soon: queues leave holes."""


def rocks_options(*, create: bool) -> Options:
    """Build the options of the database and of each of its column families.

    Shape:   all column families of one call share one block cache.
    """
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.create_missing_column_families(True)
    _recover_carefully(options)
    _bound_memory(options)
    _bound_disk(options)
    return options


def _recover_carefully(options: Options) -> None:
    # `kill -9` and a full disk tear at most the log's last record; anything else is damage, and
    # the modes that read on past it, or stop short of it in silence, would forget money.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)


def _bound_memory(options: Options) -> None:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    tables.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    options.set_block_based_table_factory(tables)
    options.set_db_write_buffer_size(MEMTABLES_BYTES)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(OPEN_FILES_MAX)
    options.set_allow_mmap_reads(False)
    options.set_allow_mmap_writes(False)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)


def _bound_disk(options: Options) -> None:
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_target_file_size_base(TABLE_BYTES)
    options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_background_jobs(2)
    options.add_compact_on_deletion_collector_factory(
        DELETIONS_WINDOW, DELETIONS_TRIGGER, DELETIONS_RATIO
    )
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX)
    options.set_keep_log_file_num(LOG_FILES_MAX)
    options.set_max_log_file_size(LOG_FILE_BYTES)
