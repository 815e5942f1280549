#ifndef CAIRN_PROTOBUF_C_SHIM_H
#define CAIRN_PROTOBUF_C_SHIM_H
#include <protobuf-c/protobuf-c.h>
#endif
