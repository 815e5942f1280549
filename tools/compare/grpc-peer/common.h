// What the gRPC server and the client of tools/compare/grpc share.
#pragma once
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

inline std::string contents(const std::string &path) {
    std::ifstream file(path);
    if (!file) {
        std::cerr << path << ": cannot be read\n";
        std::exit(1);
    }
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}
