#ifndef CAIRN_ROCKSDB_SHIM_H
#define CAIRN_ROCKSDB_SHIM_H
#include <rocksdb/c.h>
#endif
